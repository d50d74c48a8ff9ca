#include "kernel/quantized.h"

#include <algorithm>

namespace qb::kernel {
namespace {

void fp8(const float* x, int64_t count, float scale, float* out) {
  for (int64_t j = 0; j < count; ++j) out[j] = inputs::to_e4m3(x[j] / scale) * scale;
}

void mx(Quantization q, const float* x, int64_t count, float* out) {
  const bool bytes = is_mxfp8(q);
  for (int64_t j = 0; j < count; j += 32) {
    const int64_t end = std::min(j + 32, count);
    const float s = inputs::mx_scale(q, inputs::amax(x + j, end - j));
    for (int64_t i = j; i < end; ++i) out[i] = (bytes ? inputs::to_e4m3(x[i] / s) : inputs::to_e2m1(x[i] / s)) * s;
  }
}

void nvfp4(const float* x, int64_t count, float global, float* out) {
  for (int64_t i = 0; i < count; i += 16) {
    const float scale = inputs::to_e4m3(inputs::amax(x + i, 16) / 6.0F / global), d = scale * global;
    for (int64_t j = i; j < i + 16; ++j) out[j] = d == 0 ? 0.0F : inputs::to_e2m1(x[j] / d) * d;
  }
}

}  // namespace

QuantizedInputs::QuantizedInputs(const RunArgs& args) : a_(args), integers_(integer_inputs(*args.problem)), tensor_{args.weight->input_scale, 0} {
  const Problem& p = *a_.problem;
  const int64_t all = p.m * p.k;
  if (integers_) {
    tensor_.zero = static_cast<float>(a_.weight->input_zero);
    if (!integers_->fixed && integers_->columns == 0) tensor_ = integer_scale(*integers_, integer_range(*integers_, a_.x, all));
  } else {
    q_ = *quantization_of(p);
    if (q_ == Quantization::fp8_tensor) tensor_.scale = inputs::fp8_scale(inputs::amax(a_.x, all));
  }
}

void QuantizedInputs::row(int64_t m, float* out) const {
  const int64_t k = a_.problem->k;
  const float* x = a_.x + m * k;
  if (integers_) {
    const bool own = !integers_->fixed && integers_->columns != 0;
    const int64_t columns = own ? integers_->columns : k;
    for (int64_t j = 0; j < k; j += columns) {
      const int64_t count = std::min(columns, k - j);
      round_integers(*integers_, x + j, count, own ? integer_scale(*integers_, integer_range(*integers_, x + j, count)) : tensor_, out + j);
    }
    return;
  }
  switch (q_) {
    case Quantization::f32:
      std::copy_n(x, k, out);
      return;
    case Quantization::bf16:
      for (int64_t j = 0; j < k; ++j) out[j] = inputs::to_bf16(x[j]);
      return;
    case Quantization::fp8_fixed:
    case Quantization::fp8_tensor:
      return fp8(x, k, tensor_.scale, out);
    case Quantization::fp8_token:
    case Quantization::fp8_group:
    case Quantization::fp8_group_e8m0: {
      const int64_t columns = a_.problem->scheme.input->type.block.cols, group = columns == 0 ? k : columns;
      for (int64_t j = 0; j < k; j += group) {
        const int64_t count = std::min(group, k - j);
        fp8(x + j, count, inputs::group_scale(q_, inputs::amax(x + j, count)), out + j);
      }
      return;
    }
    case Quantization::mxfp8:
    case Quantization::mxfp8_even:
    case Quantization::mxfp8_up:
    case Quantization::mxfp4:
    case Quantization::mxfp4_even:
    case Quantization::mxfp4_up:
      return mx(q_, x, k, out);
    case Quantization::nvfp4:
      return nvfp4(x, k, tensor_.scale, out);
  }
}

}  // namespace qb::kernel
