#include "dialect/masked.h"

#include <fmt/format.h>

#include <cstring>

#include "ir/stack.h"

namespace qb {
namespace {

constexpr int64_t largest = int64_t{1} << 40;

std::string describe(const TensorInfo& t) {
  return fmt::format("{} [{}]", info(t.dtype).safetensors, fmt::join(t.shape, ","));
}

// The I64 numbers of a tensor that facts are fetched for.
std::vector<int64_t> numbers_of(const Reading& r, const TensorInfo* t) {
  const Facts::Scalar* fact = t != nullptr && t->dtype == Elem::i64 ? r.context.facts.find(t->name) : nullptr;
  if (fact == nullptr) return {};
  std::vector<int64_t> out(fact->bits.size() / 8);
  std::memcpy(out.data(), fact->bits.data(), out.size() * 8);
  return out;
}

// Rows begin one behind the other, none has more numbers than columns, and the last one ends with the tensor.
bool ascend(const std::vector<int64_t>& starts, int64_t k) {
  for (size_t i = 1; i < starts.size(); ++i)
    if (starts[i] < starts[i - 1] || starts[i] - starts[i - 1] > k) return false;
  return starts.front() == 0;
}

}  // namespace

bool is_masked(const Reading& r, const ir::Module& m) {
  return r.find(m, "compressed") != nullptr;
}

bool is_two_of_four(const Reading& r, const ir::Module& m) {
  return is_masked(r, m) && r.find(m, "row_offsets") == nullptr;
}

bool read_masked(Reading& r, ir::Module& m, Elem elem) {
  const TensorInfo *values = r.find(m, "compressed"), *bits = r.find(m, "bitmask"), *offsets = r.find(m, "row_offsets"), *size = r.find(m, "shape");
  for (const TensorInfo* t : {values, bits, offsets, size})
    if (t != nullptr) r.claim(*t);
  const auto wrong = [&](const TensorInfo& t, const char* problem, std::string found, std::string expected) {
    r.diag.report(problem, {.file = r.context.package.file_name(t.file), .tensor = t.name, .module = m.path}, std::move(found), std::move(expected));
    return false;
  };
  if (bits == nullptr) return wrong(*values, "weight-missing", "no bitmask", fmt::format("{}.bitmask, which says where the numbers lie", m.path));
  const std::vector<int64_t> said = numbers_of(r, size);
  int64_t n = 0, k = 0;
  if (offsets == nullptr) {
    if (values->shape.size() != 2 || values->shape[0] < 1 || values->shape[1] < 2 || values->shape[1] % 2 != 0 || values->shape[1] > largest)
      return wrong(*values, "weight-shape", describe(*values), "[n, k/2]: two of every four numbers");
    n = values->shape[0];
    k = 2 * values->shape[1];
  } else {
    n = bits->shape.empty() ? 0 : bits->shape[0];
    k = said.size() == 2 ? said[1] : r.out.topology.modules[static_cast<size_t>(m.topology)].k;
    if (values->shape.size() != 1 || n < 1 || k < 1 || k > largest)
      return wrong(*values, "weight-shape", describe(*values), "one dimension, and a shape [n, k]");
  }
  if (bits->dtype != Elem::u8 || bits->shape != std::vector<int64_t>{n, (k + 7) / 8})
    return wrong(*bits, "weight-shape", describe(*bits), fmt::format("U8 [{}, {}]: a bit for each element of [{}, {}]", n, (k + 7) / 8, n, k));
  if (size == nullptr)
    r.diag.report("packed-shape-mismatch", {.tensor = fmt::format("{}.shape", m.path), .module = m.path}, "absent", fmt::format("I64 [2]: {}, {}", n, k));
  if (size != nullptr && said.size() != 2) wrong(*size, "packed-shape-mismatch", describe(*size), fmt::format("I64 [2]: {}, {}", n, k));
  if (said.size() == 2 && (said[0] != n || said[1] != k))
    wrong(*size, "packed-shape-mismatch", fmt::format("[{}, {}]", said[0], said[1]), fmt::format("[{}, {}], as the numbers and bits have", n, k));
  ir::Stored s = r.stored(*values, ir::Role::code, elem, n, k);
  s.view = {.dims = {n, k}};
  s.value.reset();
  s.mask = {.tensor = bits->name, .file = bits->file, .offset = bits->offset, .bytes = bits->bytes, .starts = {}, .whole = ir::tensor_name(m, "weight")};
  if (offsets != nullptr) {
    s.mask.starts = numbers_of(r, offsets);
    s.mask.starts.push_back(values->elements());
    if (s.mask.starts.size() != static_cast<size_t>(n) + 1 || !ascend(s.mask.starts, k))
      return wrong(*offsets, "weight-shape", describe(*offsets), fmt::format("I64 [{}]: where each row begins among {} numbers", n, values->elements()));
  }
  m.n = n;
  m.k = k;
  m.parts.push_back(std::move(s));
  return true;
}

}  // namespace qb
