#include <algorithm>
#include <cstring>

#include "exec/buffer.h"
#include "exec/compiled.h"
#include "exec/numbers.h"
#include "exec/ops.h"
#include "num/rotation.h"
#include "prog/typing.h"
#include "recipe/recipe.h"

namespace qb {
namespace {

constexpr uint64_t in_output = UINT64_MAX;

}  // namespace

BlockRun::BlockRun(const Compiled& c, RowRange rows, std::span<const std::span<std::byte>> outputs) : c_(c), rows_(rows), outputs_(outputs) {
  const auto values = static_cast<prog::ValueId>(c.types.size());
  place_.assign(c.types.size(), in_output);
  for (prog::ValueId v = 0; v < values; ++v) {
    if (c.root[static_cast<size_t>(v)] == v && direct(v) == nullptr) {
      place_[static_cast<size_t>(v)] = scratch_bytes_;
      scratch_bytes_ += aligned(static_cast<uint64_t>(count(v)) * c.type(v).row_bytes());
    }
    if (c.is_input(v)) {
      loads_.emplace_back(c.program->inputs[static_cast<size_t>(v)], rows_of(v).begin, rows_of(v).end);
      staging_.push_back(scratch_bytes_);
      scratch_bytes_ += aligned(loads_.back().staging());
    }
  }
}

RowRange BlockRun::rows_of(prog::ValueId v) const {
  const prog::ValueType& t = c_.type(v);
  if (t.rows_per == 0) return {0, 1};
  return {rows_.begin / t.rows_per, prog::value_rows(rows_.end, t.rows_per)};
}

// The caller's buffer for a value that an output stores, where arithmetic may work in it; null otherwise.
std::byte* BlockRun::direct(prog::ValueId v) const {
  const auto i = static_cast<size_t>(v);
  if (c_.taker[i] < 0) return nullptr;
  const std::span<std::byte> out = outputs_[static_cast<size_t>(c_.taker[i])];
  if (out.size() != static_cast<uint64_t>(count(v)) * c_.type(v).row_bytes()) return nullptr;  // a scalar, delivered before
  const bool only_moved = c_.is_input(v) && c_.computed_on[i] == 0;
  const auto unit = static_cast<uintptr_t>(std::max(bits(c_.type(v).elem) / 8, 1));
  return only_moved || reinterpret_cast<uintptr_t>(out.data()) % unit == 0 ? out.data() : nullptr;
}

std::byte* BlockRun::at(prog::ValueId v) const {
  const prog::ValueId root = c_.root[static_cast<size_t>(v)];
  const uint64_t place = place_[static_cast<size_t>(root)];
  return place == in_output ? direct(root) : scratch_ + place;
}

Result<void> BlockRun::request(std::byte* scratch, Requests& requests) {
  scratch_ = scratch;
  for (size_t i = 0; i < loads_.size(); ++i) QB_TRY(loads_[i].request(at(static_cast<prog::ValueId>(i)), scratch + staging_[i], requests));
  return {};
}

Result<void> BlockRun::compute(Source& source, Context& context) {
  const prog::Program& p = *c_.program;
  for (size_t i = 0; i < loads_.size(); ++i) QB_TRY(loads_[i].gather(at(static_cast<prog::ValueId>(i)), scratch_ + staging_[i]));
  for (const prog::Reduction& r : p.reductions) {
    QB_ASSIGN(amax_.emplace_back(), context.reduce(r, source));
  }
  isa_ = context.isa;
  auto next = static_cast<prog::ValueId>(p.inputs.size());
  for (const prog::Op& op : p.ops) {
    QB_TRY(std::visit([this, next](const auto& o) { return run(o, next); }, op));
    next += prog::results_of(op);
  }
  for (size_t o = 0; o < p.outputs.size(); ++o) {
    const std::byte* from = at(p.outputs[o].value);
    if (!outputs_[o].empty() && from != outputs_[o].data()) std::memcpy(outputs_[o].data(), from, outputs_[o].size());
  }
  return {};
}

Result<void> BlockRun::run(const prog::Literal& op, prog::ValueId to) const {
  std::memcpy(at(to), op.bytes.data(), op.bytes.size());
  return {};
}

Result<void> BlockRun::run(const prog::Recode& op, prog::ValueId to) const {
  ops::recode(at(op.src), c_.type(op.src).elem, at(to), op.to, elements(op.src));
  return {};
}

Result<void> BlockRun::run(const prog::Rescale& op, prog::ValueId to) const {
  ops::rescale(at(op.src), c_.type(op.src).elem, at(to), elements(op.src));
  return {};
}

Result<void> BlockRun::run(const prog::Dequantize& op, prog::ValueId to) const {
  ops::DequantizeArgs a{.op = op};
  a.scale_elem = c_.type(op.scale).elem;
  a.code = at(op.code);
  a.scale = at(op.scale);
  if (op.global >= 0) {
    a.global_elem = c_.type(op.global).elem;
    a.global = at(op.global);
  }
  if (op.zero >= 0) a.zero = at(op.zero);
  if (op.order >= 0) a.order = at(op.order);
  a.out = at(to);
  a.first_row = rows_.begin;
  a.rows = count(op.code);
  a.cols = c_.type(op.code).cols;
  return ops::dequantize(a);
}

Result<void> BlockRun::run(const prog::Fold& op, prog::ValueId to) const {
  ops::FoldArgs f{.rows = count(op.src), .cols = c_.type(op.src).cols};
  const auto floats = [this](prog::ValueId v) { return v == -1 ? nullptr : reinterpret_cast<const float*>(at(v)); };
  f.src = floats(op.src);
  f.a = floats(op.a);
  f.b = floats(op.b);
  f.prescale = floats(op.prescale);
  f.rank = op.b == -1 ? 0 : c_.type(op.b).cols;
  f.out = reinterpret_cast<float*>(at(to));
  ops::fold(f);
  return {};
}

Result<void> BlockRun::run(const prog::Rotate& op, prog::ValueId to) const {
  const int64_t rows = count(op.src), cols = c_.type(op.src).cols, block = prog::side(c_.type(op.matrix).cols);
  std::vector<double> matrix(static_cast<size_t>(block * block));
  ops::to_doubles(at(op.matrix), c_.type(op.matrix).elem, matrix);
  const Rotation rotation(std::move(matrix), block, op.transposed, op.divisor);
  const auto* src = reinterpret_cast<const float*>(at(op.src));
  auto* out = reinterpret_cast<float*>(at(to));
  std::vector<double> room(rotation.room());
  for (int64_t i = 0; !op.down && i < rows * cols; i += block) rotation.apply(src + i, out + i, 1, room);
  for (int64_t i = 0; op.down && i < rows; i += block)
    for (int64_t j = 0; j < cols; ++j) rotation.apply(src + i * cols + j, out + i * cols + j, cols, room);
  return {};
}

Result<void> BlockRun::run(const prog::Hadamard& op, prog::ValueId to) const {
  ops::HadamardArgs a{.op = op, .src = at(op.src), .elem = c_.type(op.src).elem};
  if (op.gains != -1) {
    a.gains = at(op.gains);
    a.gains_elem = c_.type(op.gains).elem;
  }
  a.out = at(to);
  a.first_row = rows_.begin;
  a.rows = count(op.src);
  a.cols = c_.type(op.src).cols;
  ops::hadamard(a);
  return {};
}

Result<void> BlockRun::run(const prog::Quantize& op, prog::ValueId to) const {
  if (elements(op.src) == 0) return {};
  recipe::Args a{};
  a.weights = at(op.src);
  a.source = c_.type(op.src).elem;
  const bool turned = c_.type(op.src).turned;
  a.rows = turned ? c_.type(op.src).cols : count(op.src);
  a.k = turned ? count(op.src) : c_.type(op.src).cols;
  a.n = turned ? a.rows : c_.program->rows;
  a.amax = op.reduction < 0 ? 0.0F : amax_[static_cast<size_t>(op.reduction)];
  a.type = op.type;
  a.codes = at(to);
  a.scales = at(to + 1);
  a.global = op.type.two_level() ? at(to + 2) : nullptr;
  a.zeros = op.type.zero != ir::Zero::none ? at(to + 2) : nullptr;
  a.isa = isa_;
  recipe::find_recipe(op.recipe)->run(a);
  return {};
}

Result<void> BlockRun::run(const prog::Turn& op, prog::ValueId to) const {
  const prog::ValueType& t = c_.type(op.src);
  const int64_t rows = t.turned ? t.cols : count(op.src), cols = t.turned ? count(op.src) : t.cols;
  ops::turn(at(op.src), rows, cols, bits(t.elem) / 8, at(to));
  return {};
}

Result<void> BlockRun::run(const prog::Pack& op, prog::ValueId to) const {
  const prog::ValueType& t = c_.type(op.src);
  ops::pack(at(op.src), count(op.src), t.cols, t.elem, op.layout, at(to));
  return {};
}

Result<void> BlockRun::run(const prog::PackWords& op, prog::ValueId to) const {
  ops::pack_words(at(op.src), count(op.src), c_.type(op.src).cols, op, at(to));
  return {};
}

Result<void> BlockRun::run(const prog::Pad& op, prog::ValueId to) const {
  const auto from_bytes = static_cast<size_t>(c_.type(op.src).row_bytes()), to_bytes = static_cast<size_t>(c_.type(to).row_bytes());
  for (int64_t i = 0; i < count(op.src); ++i) {
    std::byte* row = at(to) + static_cast<size_t>(i) * to_bytes;
    std::memcpy(row, at(op.src) + static_cast<size_t>(i) * from_bytes, from_bytes);
    std::memset(row + from_bytes, 0, to_bytes - from_bytes);
  }
  return {};
}

Result<void> BlockRun::run(const prog::Zeros&, prog::ValueId to) const {
  std::memset(at(to), 0, static_cast<size_t>(elements(to)));
  return {};
}

Result<void> BlockRun::run(const prog::Groups& op, prog::ValueId to) const {
  for (int64_t j = 0; j < op.cols; ++j) ops::store<int32_t>(at(to), j, op.group == 0 ? 0 : static_cast<int32_t>(j / op.group));
  return {};
}

Result<void> BlockRun::run(const prog::PackNibbles& op, prog::ValueId to) const {
  if (c_.type(op.src).elem == Elem::e2m1)
    ops::pair_rows(at(op.src), count(op.src), c_.type(op.src).cols, at(to));
  else
    ops::pack_nibbles(at(op.src), count(op.src), c_.type(op.src).cols, op.order, at(to));
  return {};
}

}  // namespace qb
