// FP8 E4M3 weights with one scale for a tensor, a row, a group of columns or a tile.
//
// Sources: ModelOpt 0.47 and llm-compressor 0.14 with compressed-tensors 0.19, both with PyTorch 2.14 on the CPU; their output is compared byte for byte in the
// tests. On a GPU ModelOpt's scales may differ in the last bit (PyTorch multiplies by the reciprocal of 448 there) and its per-tensor codes by one.
// One deviation: where a producer would divide 0 by 0 (an all-zero tensor, or tile in the compressed form, under ModelOpt), the scale is 1 and the codes are
// zeros, not NaN.
#include "recipe/loops.h"
#include "recipe/recipe.h"

namespace qb::recipe {
namespace {

// How the quotient weight / scale becomes a code.
enum class Cast : uint8_t {
  wide,          // the binary32 quotient, not saturating
  narrow,        // the quotient rounded to the source dtype first, not saturating
  narrow_clamp,  // likewise, and clamped to +-448
};

// How an amax becomes a scale.
enum class Rule : uint8_t {
  modelopt_tensor,
  modelopt_blocks,  // an amax of zero counts as 448, a subnormal one as the smallest normal number of the source dtype
  modelopt_real,    // rounded to the source dtype, stored as float32
  compressed,       // rounded to the source dtype; zero gives its epsilon
};

// Whether the scale is an element of the source.
constexpr bool rounded_scale(Rule r) {
  return r == Rule::modelopt_real || r == Rule::compressed;
}

template <class S, Rule R>
QB_INLINE float scale_of(float amax) {
  if constexpr (R == Rule::modelopt_blocks) {
    if (!(amax > 0)) amax = 448;
    if (amax < S::tiny) amax = S::tiny;
  }
  float scale = amax / 448;
  if constexpr (rounded_scale(R)) scale = round_scale<S>(scale);
  if constexpr (R == Rule::compressed) return scale == 0 ? S::eps : scale;
  return scale > 0 ? scale : 1.0F;
}

template <class S, Cast C>
QB_INLINE void cast_run(const std::byte* __restrict weights, int64_t count, float scale, std::byte* __restrict codes) {
  for (int64_t i = 0; i < count; ++i) {
    const typename S::Bits bits = load<S>(weights, i);
    const uint32_t magnitude = std::bit_cast<uint32_t>(S::value(bits) / scale) & f32_abs_mask;
    uint32_t code;
    if constexpr (C == Cast::wide) {
      code = e4m3_code<false>(magnitude);
    } else if constexpr (C == Cast::narrow) {
      code = e4m3_code<false>(S::round(magnitude));
    } else {
      const uint32_t nan = magnitude > f32_inf_bits ? 1U : 0U;
      code = round_magnitude<3, 7>(S::round(magnitude), 448.0F) | nan;
    }
    // The weight's own sign: that of a NaN which the division makes differs between machines.
    codes[i] = static_cast<std::byte>(code | ((static_cast<uint32_t>(bits) >> (8 * sizeof bits - 8)) & 0x80U));
  }
}

// Where divides_within(): no quotient is so far above 448 that it would not become 448.
template <class S, Cast C, Rule R>
QB_INLINE void cast_finite(const std::byte* __restrict weights, int64_t count, float scale, std::byte* __restrict codes) {
  // Quotients are made 2^7 times as large: then 8 times the exponent, as binary32 has it, is what the exponent adds to a code, mod 256. E4M3's subnormal
  // numbers lie below 2, with the steps of the numbers above.
  const float d = scale * 0x1p-7F, inverse = 1 / d;
  each_code<S>(weights, count, codes, [=](float x) {
    float q;
    if constexpr (C == Cast::wide) {
      q = quotient(x, d, inverse);
    } else {
      q = rounded_scale(R) ? nearest_quotient<S>(x, inverse) : S::nearest(quotient(x, d, inverse));
    }
    const uint32_t magnitude = std::bit_cast<uint32_t>(q) & f32_abs_mask;
    const uint32_t exponent = max_of(magnitude & f32_inf_bits, uint32_t{128} << 23);
    const uint32_t sign = (std::bit_cast<uint32_t>(x) >> 24) & 0x80U;  // that of a zero is lost in the quotient
    // 2^20 times this is 2^23 steps, and as many more as stand in its lowest bits: the sum is rounded to steps and counts the quotient's there.
    const float base = std::bit_cast<float>(exponent + (exponent >> 20) + sign);
    return std::bit_cast<uint32_t>(__builtin_fmaf(base, 0x1p20F, std::bit_cast<float>(magnitude)));
  });
}

template <class S, Cast C, Rule R>
struct Fp8 {
  static QB_INLINE void run(const Args* args) {
    const Args& a = *args;
    const std::byte* weights = static_cast<const std::byte*>(a.weights);
    const int64_t tall = a.type.block.rows == 0 ? a.rows : a.type.block.rows;
    const int64_t wide = a.type.block.cols == 0 ? a.k : a.type.block.cols;
    int64_t block = 0;
    for (int64_t row = 0; row < a.rows; row += tall) {
      const int64_t end = row + tall < a.rows ? row + tall : a.rows;
      for (int64_t col = 0; col < a.k; col += wide) {
        const int64_t width = col + wide < a.k ? wide : a.k - col;
        const bool given = R == Rule::modelopt_tensor || a.type.block.rows == 0 || a.amax > 0;
        const float amax = given ? a.amax : block_amax(weights, a.k, row, end, col, width);
        const float scale = scale_of<S, R>(amax);
        for (int64_t i = row; i < end; ++i) {
          const int64_t at = i * a.k + col;
          const float own = given ? block_amax(weights, a.k, i, i + 1, col, width) : amax;
          if (divides_within<S, rounded_scale(R)>(a.isa, own, amax, scale)) {
            cast_finite<S, C, R>(weights + at * size, width, scale, a.codes + at);
          } else {
            cast_run<S, C>(weights + at * size, width, scale, a.codes + at);
          }
        }
        if constexpr (R == Rule::compressed) {
          store(a.scales, block++, S::narrow(scale));
        } else {
          store(a.scales, block++, scale);
        }
      }
    }
  }

 private:
  static constexpr int64_t size = sizeof(typename S::Bits);

  static QB_INLINE float block_amax(const std::byte* weights, int64_t k, int64_t row, int64_t end, int64_t col, int64_t width) {
    typename S::Magnitude most = 0;
    for (int64_t i = row; i < end; ++i) most = max_magnitude<S>(weights + (i * k + col) * size, width, most);
    return S::value(most);
  }
};

template <Cast C, Rule R>
void run(const Args& a) noexcept {
  if (a.source == Elem::bf16) return run_at<Fp8<Bf16, C, R>>(a.isa, &a);
  if (a.source == Elem::f16) return run_at<Fp8<F16, C, R>>(a.isa, &a);
  run_at<Fp8<F32, C, R>>(a.isa, &a);
}

bool fp8(const ir::QuantType& t) {
  return t.code == Elem::e4m3 && t.scale == ir::ScaleValues::any && t.zero == ir::Zero::none;
}
bool makes_tensor(const ir::QuantType& t) noexcept {
  return fp8(t) && t.block == ir::Block{0, 0};
}
bool makes_channel(const ir::QuantType& t) noexcept {
  return fp8(t) && t.block == ir::Block{1, 0};
}
bool makes_group(const ir::QuantType& t) noexcept {
  return fp8(t) && t.block.rows == 1 && t.block.cols > 0;
}
bool makes_128(const ir::QuantType& t) noexcept {
  return fp8(t) && t.block == ir::Block{128, 128};
}
bool makes_tile(const ir::QuantType& t) noexcept {
  return fp8(t) && t.block.rows > 1 && t.block.cols > 0;
}

Elem scale_f32(Elem) noexcept {
  return Elem::f32;
}
Elem scale_as_source(Elem source) noexcept {
  return source;
}

constexpr std::string_view modelopt_source = "nvidia-modelopt 0.47, export_hf_checkpoint, PyTorch on the CPU";
constexpr std::string_view compressed_source = "llm-compressor 0.14, compressed-tensors 0.19, PyTorch on the CPU";

}  // namespace

QB_RECIPE(fp8_tensor_modelopt) = {
    "fp8_tensor.modelopt", modelopt_source, Numerics::modelopt, makes_tensor, true, Share::own, scale_f32, false, 1, run<Cast::narrow, Rule::modelopt_tensor>};
QB_RECIPE(fp8_channel_modelopt) = {
    "fp8_channel.modelopt", modelopt_source, Numerics::modelopt, makes_channel, false, Share::own, scale_f32, false, 1, run<Cast::wide, Rule::modelopt_blocks>};
QB_RECIPE(fp8_block_modelopt) = {"fp8_block.modelopt",
                                 modelopt_source,
                                 Numerics::modelopt,
                                 makes_128,
                                 false,
                                 Share::single_block,
                                 scale_f32,
                                 false,
                                 128,
                                 run<Cast::wide, Rule::modelopt_blocks>};
// The same type after mtq.compress (fp8_pb_real): scales and quotients pass through the dtype of the model. Comes second, so it is found by name only.
QB_RECIPE(fp8_block_real_modelopt) = {"fp8_block_real.modelopt",
                                      modelopt_source,
                                      Numerics::modelopt,
                                      makes_128,
                                      false,
                                      Share::own,
                                      scale_f32,
                                      false,
                                      128,
                                      run<Cast::narrow, Rule::modelopt_real>};
QB_RECIPE(fp8_tensor_llm_compressor) = {"fp8_tensor.llm_compressor",
                                        compressed_source,
                                        Numerics::llm_compressor,
                                        makes_tensor,
                                        true,
                                        Share::own,
                                        scale_as_source,
                                        false,
                                        1,
                                        run<Cast::narrow_clamp, Rule::compressed>};
QB_RECIPE(fp8_channel_llm_compressor) = {"fp8_channel.llm_compressor",
                                         compressed_source,
                                         Numerics::llm_compressor,
                                         makes_channel,
                                         false,
                                         Share::own,
                                         scale_as_source,
                                         false,
                                         1,
                                         run<Cast::narrow_clamp, Rule::compressed>};
QB_RECIPE(fp8_group_llm_compressor) = {"fp8_group.llm_compressor",
                                       compressed_source,
                                       Numerics::llm_compressor,
                                       makes_group,
                                       false,
                                       Share::own,
                                       scale_as_source,
                                       false,
                                       1,
                                       run<Cast::narrow_clamp, Rule::compressed>};
QB_RECIPE(fp8_block_llm_compressor) = {"fp8_block.llm_compressor",
                                       compressed_source,
                                       Numerics::llm_compressor,
                                       makes_tile,
                                       false,
                                       Share::own,
                                       scale_as_source,
                                       false,
                                       128,
                                       run<Cast::narrow_clamp, Rule::compressed>};

}  // namespace qb::recipe
