#include "layer/activation.h"

#include <algorithm>
#include <cstring>

#include "layer/exp.h"
#include "recipe/loops.h"

namespace qb::layer {
namespace {

struct SiluMul {
  static QB_INLINE void run(float* __restrict gate, const float* __restrict up, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = gate[i];
      gate[i] = x / (1.0F + exp_f32(-x)) * up[i];
    }
  }
};

// (1 + tanh(u)) / 2 is 1 / (1 + exp(-2u)).
struct GeluTanhMul {
  static QB_INLINE void run(float* __restrict gate, const float* __restrict up, int64_t count) {
    constexpr float twice_root = 1.5957691216057308F;  // 2 sqrt(2/pi)
    for (int64_t i = 0; i < count; ++i) {
      const float x = gate[i];
      gate[i] = x / (1.0F + exp_f32(-twice_root * (x + 0.044715F * x * x * x))) * up[i];
    }
  }
};

struct ClampedMul {
  static QB_INLINE void run(float* __restrict gate, const float* __restrict up, int64_t count) {
    constexpr float limit = 7.0F, alpha = 1.702F;
    for (int64_t i = 0; i < count; ++i) {
      const float x = gate[i] > limit ? limit : gate[i];
      const float y = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];  // NaN stays
      gate[i] = (y + 1.0F) * (x / (1.0F + exp_f32(-alpha * x)));
    }
  }
};

void run_part(const GateArgs& a, Isa isa, int64_t begin, int64_t end) {
  while (begin < end) {
    const int64_t row = begin / a.n, i = begin % a.n, count = std::min(a.n - i, end - begin);
    const float *x = a.x + row * a.stride + i, *up = a.up + row * a.stride + i;
    float* const out = a.out + begin;
    if (out != x) std::memcpy(out, x, static_cast<size_t>(count) * sizeof(float));
    switch (a.gate) {
      case Gate::silu:
        recipe::run_at<SiluMul>(isa, out, up, count);
        break;
      case Gate::gelu_tanh:
        recipe::run_at<GeluTanhMul>(isa, out, up, count);
        break;
      case Gate::clamped:
        recipe::run_at<ClampedMul>(isa, out, up, count);
        break;
    }
    begin += count;
  }
}

}  // namespace

void gate_mul(const GateArgs& a, Isa isa, host::ThreadPool& pool) {
  const int64_t count = a.rows * a.n;
  if (count <= 8192) return run_part(a, isa, 0, count);
  pool.ranges(count, 64, [&a, isa](int64_t begin, int64_t end) { run_part(a, isa, begin, end); });
}

}  // namespace qb::layer
