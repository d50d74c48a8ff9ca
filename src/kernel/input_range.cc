#include "kernel/input_range.h"

#include <algorithm>
#include <cmath>

namespace qb::kernel {
namespace {

float rounded(float x, float low, float high) {
  return std::clamp(std::nearbyint(x), low, high);  // NaN stays
}

// NaN is taken and stays.
float smaller(float a, float b) {
  return b >= a || a != a ? a : b;
}
float larger(float a, float b) {
  return b <= a || a != a ? a : b;
}

}  // namespace

int64_t input_ranges(const Problem& p) {
  if (const std::optional<IntegerInputs> in = integer_inputs(p); in) return in->fixed ? 0 : in->columns == 0 ? 1 : in->columns == p.k ? p.m : 0;
  const std::optional<Quantization> q = quantization_of(p);
  return q == Quantization::fp8_tensor ? 1 : q == Quantization::fp8_token ? p.m : 0;
}

void find_ranges(const Problem& p, const float* x, std::span<InputRange> ranges) {
  const std::optional<IntegerInputs> in = integer_inputs(p);
  const int64_t count = p.m * p.k / std::max<int64_t>(static_cast<int64_t>(ranges.size()), 1);
  for (InputRange& r : ranges) {
    r = in ? integer_range(*in, x, count) : InputRange{0, inputs::amax(x, count)};
    x += count;
  }
}

InputRange both(const InputRange& a, const InputRange& b) {
  return {smaller(a.least, b.least), larger(a.most, b.most)};
}

void quantize_by_range(const Problem& p, const float* x, std::span<const InputRange> ranges, float* out) {
  const std::optional<IntegerInputs> in = integer_inputs(p);
  const int64_t count = p.m * p.k / std::max<int64_t>(static_cast<int64_t>(ranges.size()), 1);
  for (const InputRange& r : ranges) {
    if (in) {
      round_integers(*in, x, count, integer_scale(*in, r), out);
    } else {
      const float scale = inputs::fp8_scale(r.most);
      for (int64_t j = 0; j < count; ++j) out[j] = inputs::to_e4m3(x[j] / scale) * scale;
    }
    x += count;
    out += count;
  }
}

IntegerScale integer_scale(const IntegerInputs& in, const InputRange& range) {
  const float low = -static_cast<float>(1 << (in.bits - 1)), high = -low - 1;
  if (in.zeros) {
    float scale = (range.most - range.least) / (high - low);
    scale = scale == 0 ? 1.0F : scale;
    return {scale, rounded(low - range.least / scale, low, high)};
  }
  const float scale = range.most / high;
  return {scale < 1e-12F ? 1e-12F : scale, 0};
}

InputRange integer_range(const IntegerInputs& in, const float* x, int64_t count) {
  if (!in.zeros) return {0, inputs::amax(x, count)};
  InputRange r;
  for (int64_t j = 0; j < count; ++j) r = both(r, {x[j], x[j]});
  return r;
}

void round_integers(const IntegerInputs& in, const float* x, int64_t count, IntegerScale s, float* out) {
  const float low = -static_cast<float>(1 << (in.bits - 1)), high = -low - 1;
  for (int64_t j = 0; j < count; ++j) out[j] = (rounded(x[j] / s.scale + s.zero, low, high) - s.zero) * s.scale;
}

}  // namespace qb::kernel
