#include "layer/embedding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "num/codec.h"

namespace qb::layer {
namespace {

uint16_t half_at(const std::byte* p) {
  uint16_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Row `n` of panel_bf16: a line of 64 bytes holds two columns of sixteen rows.
void from_panel(const std::byte* panels, int64_t n, int64_t k, float* out) {
  const std::byte* panel = panels + n / ir::panel_rows * ir::panel_bytes(ir::Layout::panel_bf16, k, 16);
  for (int64_t j = 0; j < k; ++j) out[j] = decode_bf16(half_at(panel + j / 2 * 64 + n % ir::panel_rows * 4 + j % 2 * 2));
}

void from_row(const std::byte* row, Elem elem, int64_t k, float* out) {
  if (elem == Elem::f32) {
    std::memcpy(out, row, static_cast<size_t>(k) * 4);
  } else if (elem == Elem::bf16) {
    for (int64_t j = 0; j < k; ++j) out[j] = decode_bf16(half_at(row + 2 * j));
  } else {
    for (int64_t j = 0; j < k; ++j) out[j] = decode_f16(half_at(row + 2 * j));
  }
}

bool is_row_elem(Elem e) {
  return e == Elem::f32 || e == Elem::f16 || e == Elem::bf16;
}

}  // namespace

Result<Embedding> Embedding::load(const ir::Module& module, Source& source, host::Arena& arena, const LinearOptions& options, Context& context) {
  const ir::Stored* code = module.part(ir::Role::code);
  if (code == nullptr) return Error{Errc::invalid_argument, fmt::format("{}: the checkpoint has no weight for it", module.path)};
  if (module.scheme || !is_row_elem(code->elem)) {
    return Error{Errc::invalid_argument,
                 fmt::format("{}: a quantized embedding is not supported by the runtime (tensor {}, {})", module.path, code->tensor, info(code->elem).name)};
  }
  Embedding e;
  e.elem_ = code->elem;
  e.n_ = module.n;
  e.k_ = module.k;
  prog::Program p;
  p.rows = e.n_;
  p.inputs.push_back(prog::input_of(*code, 1));
  p.ops.emplace_back(prog::Copy{0});
  p.outputs.push_back({.name = code->tensor, .dtype = code->elem, .shape = {e.n_, e.k_}, .value = 1});
  e.bytes_ = prog::output_bytes(p.outputs[0]);
  QB_ASSIGN(const std::span<std::byte> into, arena.take(e.bytes_));
  e.data_ = into.data();
  const std::span<std::byte> outputs[] = {into};
  QB_TRY(run_into(p, source, outputs, options.pool, context));
  return e;
}

Result<Embedding> Embedding::share(const Linear& head) {
  Embedding e;
  const kernel::Problem& problem = head.problem();
  e.elem_ = problem.scheme.weight.code;
  e.layout_ = head.plan().code_layout;
  if (!problem.scheme.weight.plain() || !is_row_elem(e.elem_) || (e.layout_ != ir::Layout::rows && e.layout_ != ir::Layout::panel_bf16)) {
    return Error{Errc::invalid_argument, "the embedding cannot be read back from a quantized head"};
  }
  e.data_ = head.weight().codes;
  e.n_ = head.n();
  e.k_ = head.k();
  return e;
}

void Embedding::gather(std::span<const int32_t> ids, float* out) const {
  const int64_t row_bytes = k_ * bits(elem_) / 8;
  for (const int32_t id : ids) {
    if (layout_ == ir::Layout::panel_bf16) {
      from_panel(data_, id, k_, out);
    } else {
      from_row(data_ + id * row_bytes, elem_, k_, out);
    }
    out += k_;
  }
}

}  // namespace qb::layer
