// Integer weights of two to eight bits, symmetric, with one scale for a tensor, a row or a group of columns.
//
// Sources: ModelOpt 0.47 and llm-compressor 0.14 with compressed-tensors 0.19, both with PyTorch 2.14 on the CPU; their output is compared byte for byte in the
// tests. llm-compressor computes everything in the dtype of the model: scale = amax / ((2^b - 1) / 2), so that the largest weight falls half a step outside and
// is clamped. ModelOpt computes in float32: scale = amax / (2^(b-1) - 1), and 0 for zeros alone.
// A NaN has no code: it makes its scale NaN, and the codes zero.
#include <type_traits>

#include "recipe/loops.h"
#include "recipe/recipe.h"

namespace qb::recipe {
namespace {

// Rounded: the dtype in which scales and quotients are rounded.
struct Compressed {
  template <class S>
  using Rounded = S;
  template <class S>
  static QB_INLINE float scale(float amax, int width) {
    const float scale = round_scale<S>(amax / (static_cast<float>((1 << width) - 1) / 2));
    return scale == 0 ? S::eps : scale;
  }
};
struct ModelOpt {
  template <class S>
  using Rounded = F32;
  template <class S>
  static QB_INLINE float scale(float amax, int width) {
    return amax / static_cast<float>((1 << (width - 1)) - 1);
  }
};

template <class S, class Numbers>
struct Integers {
  static QB_INLINE void run(const Args* args) {
    const Args& a = *args;
    const std::byte* weights = static_cast<const std::byte*>(a.weights);
    const int width = bits(a.type.code);
    const float low = -static_cast<float>(1 << (width - 1));
    const int64_t wide = a.type.block.cols == 0 ? a.k : a.type.block.cols;
    int64_t block = 0;
    for (int64_t row = 0; row < a.rows; ++row) {
      for (int64_t col = 0; col < a.k; col += wide) {
        const int64_t count = col + wide < a.k ? wide : a.k - col, at = row * a.k + col;
        const std::byte* from = weights + at * size;
        const float own = S::value(max_magnitude<S>(from, count, 0)), amax = a.type.block.rows == 0 ? a.amax : own;
        const float scale = Numbers::template scale<S>(amax, width);
        if (divides_within<S, std::is_same_v<R, S>>(a.isa, own, amax, scale)) {
          finite_codes(from, count, scale, -low - 1, a.codes + at);
        } else {
          codes(from, count, scale, low, -low - 1, a.codes + at);
        }
        if (a.type.block.rows != 0 || row == 0) store(a.scales, block++, R::narrow(scale));
      }
    }
  }

 private:
  using R = typename Numbers::template Rounded<S>;
  static constexpr int64_t size = sizeof(typename S::Bits);
  // Adding it rounds to a whole number, ties to even, that stands in the lowest bits: two's complement.
  static constexpr float magic = 0x1.8p23F;

  static QB_INLINE void codes(const std::byte* __restrict weights, int64_t count, float scale, float low, float high, std::byte* __restrict to) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t quotient = std::bit_cast<uint32_t>(S::value(load<S>(weights, i)) / scale), magnitude = quotient & f32_abs_mask;
      const uint32_t narrow = magnitude > f32_inf_bits ? 0U : R::round(magnitude) | (quotient & ~f32_abs_mask);
      float q = std::bit_cast<float>(narrow);
      q = q < low ? low : q;
      q = q > high ? high : q;
      to[i] = static_cast<std::byte>(std::bit_cast<uint32_t>(q + magic));
    }
  }

  // Where divides_within(): none is more than half a step beyond the largest code, so none is below the least.
  static QB_INLINE void finite_codes(const std::byte* __restrict weights, int64_t count, float scale, float high, std::byte* __restrict to) {
    const float inverse = 1 / scale;
    each_code<S>(weights, count, to, [=](float x) {
      float q;
      if constexpr (std::is_same_v<R, S>) {
        q = nearest_quotient<S>(x, inverse);
      } else {
        q = R::nearest(quotient(x, scale, inverse));
      }
      return std::bit_cast<uint32_t>((q < high ? q : high) + magic);
    });
  }
};

template <class Numbers>
void run(const Args& a) noexcept {
  if (a.source == Elem::bf16) return run_at<Integers<Bf16, Numbers>>(a.isa, &a);
  if (a.source == Elem::f16) return run_at<Integers<F16, Numbers>>(a.isa, &a);
  run_at<Integers<F32, Numbers>>(a.isa, &a);
}

bool integer(const ir::QuantType& t) {
  return is_integer_code(t.code) && t.scale == ir::ScaleValues::any && t.zero == ir::Zero::none;
}
bool makes_tensor(const ir::QuantType& t) noexcept {
  return integer(t) && t.block == ir::Block{0, 0};
}
bool makes_rows(const ir::QuantType& t) noexcept {
  return integer(t) && t.block.rows == 1;
}
Elem scale_as_source(Elem source) noexcept {
  return source;
}

Elem scale_f32(Elem) noexcept {
  return Elem::f32;
}

constexpr std::string_view modelopt_source = "nvidia-modelopt 0.47, export_hf_checkpoint, PyTorch on the CPU";
constexpr std::string_view compressed_source = "llm-compressor 0.14, compressed-tensors 0.19, PyTorch on the CPU";

}  // namespace

QB_RECIPE(int_tensor_llm_compressor) = {
    "int_tensor.llm_compressor", compressed_source, Numerics::llm_compressor, makes_tensor, true, Share::own, scale_as_source, false, 1, run<Compressed>};
QB_RECIPE(int_rows_llm_compressor) = {
    "int_rows.llm_compressor", compressed_source, Numerics::llm_compressor, makes_rows, false, Share::own, scale_as_source, false, 1, run<Compressed>};

QB_RECIPE(int_rows_modelopt) = {"int_rows.modelopt", modelopt_source, Numerics::modelopt, makes_rows, false, Share::own, scale_f32, false, 1, run<ModelOpt>};

}  // namespace qb::recipe
