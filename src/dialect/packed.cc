#include "dialect/packed.h"

#include <fmt/format.h>

namespace qb {

bool PackedReading::begin() {
  code_ = r_.find(m_, "qweight");
  zero_ = r_.find(m_, "qzeros");
  scale_ = r_.find(m_, "scales");
  for (const TensorInfo* t : {code_, zero_, scale_})
    if (t != nullptr) r_.claim(*t);
  if (code_ != nullptr && scale_ != nullptr) return matrix(*code_, Elem::i32, "codes");
  r_.diag.report(code_ == nullptr ? "weight-missing" : "scale-missing",
                 {.tensor = fmt::format("{}.{}", m_.path, code_ == nullptr ? "qweight" : "scales"), .module = m_.path}, "absent",
                 "qweight and scales of a quantized linear");
  return false;
}

bool PackedReading::wrong(const TensorInfo& t, const char* problem, std::string expected) const {
  r_.diag.report(problem, {.file = r_.context.package.file_name(t.file), .tensor = t.name, .module = m_.path},
                 fmt::format("{} [{}]", info(t.dtype).safetensors, fmt::join(t.shape, ",")), std::move(expected));
  return false;
}

bool PackedReading::matrix(const TensorInfo& t, Elem dtype, std::string_view what) const {
  if (t.dtype == dtype && t.shape.size() == 2 && t.shape[0] > 0 && t.shape[1] > 0) return true;
  return wrong(t, t.dtype == dtype ? "weight-shape" : "dtype-unexpected", fmt::format("{} with two dimensions: {}", info(dtype).safetensors, what));
}

bool PackedReading::float_matrix(const TensorInfo& t) const {
  if (t.dtype != Elem::f16 && t.dtype != Elem::bf16 && t.dtype != Elem::f32) return wrong(t, "dtype-unexpected", "F16, BF16 or F32");
  return matrix(t, t.dtype, "scales");
}

bool PackedReading::has_shape(const TensorInfo& t, int64_t rows, int64_t cols) const {
  if (t.shape[0] == rows && t.shape[1] == cols) return true;
  return wrong(t, "scale-shape", fmt::format("[{}, {}] for a weight [{}, {}] with {}", rows, cols, m_.n, m_.k, ir::to_string(m_.scheme->weight)));
}

void PackedReading::add(const TensorInfo& t, ir::Role role, Elem elem, const ir::View& view) const {
  m_.parts.push_back(r_.stored(t, role, elem, view.dims[0], view.dims[1]));
  m_.parts.back().view = view;
}

void PackedReading::add_scale(int64_t groups) const {
  add(*scale_, ir::Role::scale, scale_->dtype, transposed(m_.n, groups, bits(scale_->dtype)));
}

bool has_packed(const Reading& r, const ir::Module& m) {
  return r.find(m, "qweight") != nullptr || r.find(m, "scales") != nullptr;
}

ir::View transposed(int64_t rows, int64_t cols, int bits) {
  return {.dims = {rows, cols}, .stride = {bits, rows * bits}};
}

}  // namespace qb
