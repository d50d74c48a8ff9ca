// Integer weights of two to eight bits with zero points, one scale and one zero point for a row or a group of columns.
//
// Source: llm-compressor 0.14 with compressed-tensors 0.19, with PyTorch 2.14 on the CPU; its output is compared byte for byte in the tests. Everything is
// computed in the dtype of the model: the range reaches from the least to the largest weight and holds 0; scale = range / (2^b - 1), zero = lowest - least /
// scale. A NaN has no code: it makes its scale NaN, the codes and the zero point zero.
#include "recipe/loops.h"
#include "recipe/recipe.h"

namespace qb::recipe {
namespace {

// x rounded to the source dtype. NaN stays NaN.
template <class S>
QB_INLINE float round_to(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x), magnitude = u & f32_abs_mask;
  return magnitude > f32_inf_bits ? x : std::bit_cast<float>(S::round(magnitude) | (u & ~f32_abs_mask));
}

constexpr float magic = 0x1.8p23F;  // adding and taking it away rounds to whole numbers, ties to even

// The nearest integer from `low` to `high`; 0 for NaN.
QB_INLINE float whole(float x, float low, float high) {
  x = x < low ? low : x;
  x = x > high ? high : x;
  x = x == x ? x : 0.0F;
  return (x + magic) - magic;
}

template <class S>
struct Asymmetric {
  static QB_INLINE void run(const Args* args) {
    const Args& a = *args;
    const std::byte* weights = static_cast<const std::byte*>(a.weights);
    const int width = bits(a.type.code);
    const float low = -static_cast<float>(1 << (width - 1)), high = -low - 1, steps = static_cast<float>((1 << width) - 1);
    const int64_t wide = a.type.block.cols == 0 ? a.k : a.type.block.cols;
    int64_t block = 0;
    for (int64_t row = 0; row < a.rows; ++row) {
      for (int64_t col = 0; col < a.k; col += wide, ++block) {
        const int64_t count = col + wide < a.k ? wide : a.k - col, at = row * a.k + col;
        const std::byte* from = weights + at * size;
        const Range range = range_of(from, count);
        float scale = round_to<S>(round_to<S>(range.most - range.least) / steps);
        scale = scale == 0 ? S::eps : scale;
        const float zero = whole(round_to<S>(low - round_to<S>(range.least / scale)), low, high);
        codes(from, count, scale, zero, low, high, a.codes + at);
        store(a.scales, block, S::narrow(scale));
        a.zeros[block] = static_cast<std::byte>(static_cast<int>(zero));
      }
    }
  }

 private:
  static constexpr int64_t size = sizeof(typename S::Bits);

  struct Range {
    float least, most;
  };
  static QB_INLINE Range range_of(const std::byte* __restrict weights, int64_t count) {
    float least = 0, most = 0;
    int32_t nan = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float x = S::value(load<S>(weights, i));
      least = x < least ? x : least;
      most = x > most ? x : most;
      nan |= x == x ? 0 : 1;
    }
    if (nan != 0) least = most = std::bit_cast<float>(0x7FC00000U);
    return {least, most};
  }

  static QB_INLINE void codes(const std::byte* __restrict weights, int64_t count, float scale, float zero, float low, float high, std::byte* __restrict to) {
    for (int64_t i = 0; i < count; ++i) {
      const float quotient = round_to<S>(S::value(load<S>(weights, i)) / scale);
      to[i] = static_cast<std::byte>(static_cast<int>(whole(round_to<S>(quotient + zero), low, high)));
    }
  }
};

void run(const Args& a) noexcept {
  if (a.source == Elem::bf16) return run_at<Asymmetric<Bf16>>(a.isa, &a);
  if (a.source == Elem::f16) return run_at<Asymmetric<F16>>(a.isa, &a);
  run_at<Asymmetric<F32>>(a.isa, &a);
}

bool makes(const ir::QuantType& t) noexcept {
  return is_integer_code(t.code) && t.scale == ir::ScaleValues::any && t.zero == ir::Zero::code && t.block.rows == 1;
}
Elem scale_as_source(Elem source) noexcept {
  return source;
}

constexpr std::string_view compressed_source = "llm-compressor 0.14, compressed-tensors 0.19, PyTorch on the CPU";

}  // namespace

QB_RECIPE(int_rows_asym_llm_compressor) = {
    "int_rows_asym.llm_compressor", compressed_source, Numerics::llm_compressor, makes, false, Share::own, scale_as_source, false, 1, run};

}  // namespace qb::recipe
