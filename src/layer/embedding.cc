#include "layer/embedding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "exec/ops.h"
#include "layer/numbers.h"
#include "num/codec.h"

namespace qb::layer {
namespace {

uint16_t half_at(const std::byte* p) {
  uint16_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return v;
}

float number_at(const std::byte* p, Elem elem) {
  float f = 0;
  if (elem == Elem::f32) return std::memcpy(&f, p, sizeof f), f;
  return elem == Elem::bf16 ? decode_bf16(half_at(p)) : decode_f16(half_at(p));
}

// Row `n` of panels (ir/layout.h): two columns of a row lie beside each other, or the numbers of sixteen rows do.
void from_panel(const std::byte* panels, ir::Layout layout, Elem elem, int64_t n, int64_t k, float* out) {
  const int64_t bytes = bits(elem) / 8, row = n % ir::panel_rows;
  const std::byte* panel = panels + n / ir::panel_rows * ir::panel_bytes(layout, k, bits(elem));
  for (int64_t j = 0; j < k; ++j)
    out[j] = number_at(panel + bytes * (layout == ir::Layout::panel_bf16 ? j / 2 * 32 + row * 2 + j % 2 : j * ir::panel_rows + row), elem);
}

void from_row(const std::byte* row, Elem elem, int64_t k, float* out) {
  for (int64_t j = 0; j < k; ++j) out[j] = number_at(row + j * (bits(elem) / 8), elem);
}

bool is_row_elem(Elem e) {
  return e == Elem::f32 || e == Elem::f16 || e == Elem::bf16;
}

}  // namespace

Result<Embedding> Embedding::load(const ir::Module& module, Source& source, host::Arena& arena, const LinearOptions& options, Context& context) {
  const ir::Stored* code = module.part(ir::Role::code);
  if (code == nullptr) return Error{Errc::invalid_argument, fmt::format("{}: the checkpoint has no weight for it", module.path)};
  const auto cannot = [&](std::string why) { return Error{Errc::invalid_argument, fmt::format("{}: {} (tensor {})", module.path, why, code->tensor)}; };
  if (!module.scheme && !is_row_elem(code->elem)) return cannot(fmt::format("an embedding of {} is not supported by the runtime", info(code->elem).name));
  Embedding e;
  const Elem elem = module.make ? module.scheme->weight.code : code->elem;
  e.elem_ = is_integer_code(elem) ? Elem::i8 : elem;
  e.n_ = module.n;
  e.k_ = module.k;
  prog::Program p;
  const Numbers numbers = numbers_of(module, false, p);
  std::vector<std::span<std::byte>> outputs;
  const auto add = [&](const std::optional<Numbers::Part>& part, const std::byte*& to) -> Result<void> {
    if (!part) return {};
    p.outputs.push_back(output_of(*part));
    QB_ASSIGN(const std::span<std::byte> into, arena.take(prog::output_bytes(p.outputs.back())));
    outputs.push_back(into);
    to = into.data();
    e.bytes_ += into.size();
    return {};
  };
  QB_TRY(add(numbers.code, e.data_));
  if (module.scheme) {
    if (module.scheme->features.prescale || module.scheme->features.lowrank > 0) return cannot("an embedding whose inputs are scaled makes no sense");
    if (!numbers.scale) return cannot("the checkpoint has no scales for it");
    e.quantized_ = prog::Dequantize{.type = module.scheme->weight, .code = 0, .scale = 1, .scale_form = numbers.scale->form};
    e.scale_elem_ = numbers.scale->elem;
    QB_TRY(add(numbers.scale, e.scales_));
    QB_TRY(add(numbers.zero, e.zeros_));
    QB_TRY(add(numbers.order, e.order_));
    if (numbers.global) {
      p.outputs.push_back(output_of(*numbers.global));
      outputs.push_back(std::as_writable_bytes(std::span(&e.global_, 1)));
      e.quantized_->global_form = numbers.global->form;
    } else if (const ir::Stored* global = module.part(ir::Role::global); global != nullptr) {
      if (!global->value) return cannot("the value of its second-level scale is not known");
      e.global_ = static_cast<float>(*global->value);
      e.quantized_->global_form = global->form;
    }
  }
  QB_TRY(run_into(p, source, outputs, options.pool, context));
  if (e.order_ != nullptr) QB_TRY(e.check_order(module.path));
  return e;
}

Result<Embedding> Embedding::share(const Linear& head) {
  Embedding e;
  const kernel::Problem& problem = head.problem();
  e.elem_ = problem.scheme.weight.code;
  e.layout_ = head.plan().code_layout;
  if (!problem.scheme.weight.plain() || !is_row_elem(e.elem_)) {
    return Error{Errc::invalid_argument, "the embedding cannot be read back from a quantized head"};
  }
  e.data_ = head.weight().codes;
  e.n_ = head.n();
  e.k_ = head.k();
  return e;
}

// The groups that an order names exist: one row shows it for all.
Result<void> Embedding::check_order(const std::string& path) const {
  std::vector<float> row(static_cast<size_t>(k_));
  if (dequantize(0, row.data())) return {};
  return Error{Errc::bad_input, fmt::format("{}: the order of its groups names one that has no scale", path)};
}

bool Embedding::dequantize(int64_t row, float* out) const {
  const ir::Block block = quantized_->type.block;
  const int64_t groups = block.cols == 0 ? 1 : (k_ + block.cols - 1) / block.cols, at = (block.rows == 0 ? 0 : row / block.rows) * groups;
  ops::DequantizeArgs a{.op = *quantized_};
  a.code = data_ + row * (k_ * bits(elem_) / 8);
  a.scale = scales_ + at * bits(scale_elem_) / 8;
  a.scale_elem = scale_elem_;
  if (quantized_->type.two_level()) a.global = reinterpret_cast<const std::byte*>(&global_);
  if (zeros_ != nullptr) a.zero = zeros_ + at;
  a.order = order_;
  a.out = reinterpret_cast<std::byte*>(out);
  a.rows = 1;
  a.cols = k_;
  return ops::dequantize(a).ok();
}

void Embedding::gather(std::span<const int32_t> ids, float* out) const {
  const int64_t row_bytes = k_ * bits(elem_) / 8;
  for (const int32_t id : ids) {
    if (quantized_) {
      dequantize(id, out);
    } else if (layout_ != ir::Layout::rows) {
      from_panel(data_, layout_, elem_, id, k_, out);
    } else {
      from_row(data_ + id * row_bytes, elem_, k_, out);
    }
    out += k_;
  }
}

}  // namespace qb::layer
