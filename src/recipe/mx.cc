// MXFP4 and MXFP8: E2M1 or E4M3 codes, a power of two for 32 columns.
//
// Sources: ModelOpt 0.47 and llm-compressor 0.14 with compressed-tensors 0.19, both with PyTorch 2.14 on the CPU; their output is compared byte for byte in the
// tests. Exponents are taken exactly; the producers' float32 logarithm can be one step off within 2^-20 of a power of two, which float16 and bfloat16 weights
// do not come near. Quotients by powers of two are exact.
#include "recipe/loops.h"
#include "recipe/recipe.h"

namespace qb::recipe {
namespace {

constexpr int64_t group = 32;

// The least power of two at which nothing is clamped. E2M1: ties go towards zero, and the sign of zero is set.
struct ModelOpt {
  template <class S>
  static QB_INLINE int exponent(uint32_t amax, bool bytes) {
    const int e = static_cast<int>(amax >> 23) - 127 - (bytes ? 8 : 2);
    return e + ((amax & 0x7FFFFFU) > (bytes ? 0x600000U : 0x400000U) ? 1 : 0);
  }
  static QB_INLINE uint32_t e2m1(float x) {
    const float m = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & f32_abs_mask);
    const int above = (m > 0.25F) + (m > 0.75F) + (m > 1.25F) + (m > 1.75F) + (m > 2.5F) + (m > 3.5F) + (m > 5.0F);
    return static_cast<uint32_t>(above) | (x > 0 ? 0U : 8U);
  }
};

// The exponent of the largest magnitude, the next one from 1.75 on, less that of the format's largest number; a scale that the model's dtype has no number for
// becomes 1.
struct Compressed {
  template <class S>
  static QB_INLINE int exponent(uint32_t amax, bool bytes) {
    const int e = static_cast<int>(amax >> 23) - 127 - (bytes ? 8 : 2) + ((amax & 0x7FFFFFU) >= 0x600000U ? 1 : 0);
    if constexpr (sizeof(typename S::Bits) == 2 && S::eps == F16::eps) return e < -24 ? 0 : e;
    return e;
  }
  static QB_INLINE uint32_t e2m1(float x) { return round_magnitude<1, 1>(std::bit_cast<uint32_t>(x) & f32_abs_mask, 6.0F) | (x < 0 ? 8U : 0U); }
};

template <class S, class Numbers, bool Bytes>
struct Mx {
  static QB_INLINE void run(const Args* args) {
    const Args& a = *args;
    const int64_t groups = (a.k + group - 1) / group, row_bytes = Bytes ? a.k : (a.k + 1) / 2;
    for (int64_t row = 0; row < a.rows; ++row) {
      const std::byte* weights = static_cast<const std::byte*>(a.weights) + row * a.k * size;
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t first = g * group, count = a.k - first < group ? a.k - first : group;
        const std::byte* from = weights + first * size;
        const uint32_t amax = std::bit_cast<uint32_t>(S::value(max_magnitude<S>(from, count, 0)));
        int e = Numbers::template exponent<S>(amax, Bytes);
        e = amax > f32_inf_bits ? 128 : e < -127 ? -127 : e > 127 ? 127 : e;  // NaN weights have a NaN scale
        a.scales[row * groups + g] = static_cast<std::byte>(e + 127);
        std::byte* to = a.codes + row * row_bytes + (Bytes ? first : first / 2);
        if constexpr (Bytes)
          bytes(from, count, e, to);
        else
          nibbles(from, count, e, to);
      }
    }
  }

 private:
  static constexpr int64_t size = sizeof(typename S::Bits);

  // 2^-e for -128 <= e <= 127; what lies outside of float32's normal numbers is one step of it away, and changes no code.
  static QB_INLINE float inverse(int e) { return std::bit_cast<float>(e == 127 || e == 128 ? 0x400000U : static_cast<uint32_t>(127 - e) << 23); }

  static QB_INLINE void bytes(const std::byte* __restrict from, int64_t count, int e, std::byte* __restrict to) {
    const float scale = inverse(e);
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t q = std::bit_cast<uint32_t>(S::value(load<S>(from, i)) * scale);
      to[i] = static_cast<std::byte>(e4m3_code<true>(q & f32_abs_mask) | (q >> 31 << 7));
    }
  }
  static QB_INLINE void nibbles(const std::byte* __restrict from, int64_t count, int e, std::byte* __restrict to) {
    const float scale = inverse(e);
    uint8_t code[group + 1];
    for (int64_t i = 0; i < count; ++i) code[i] = static_cast<uint8_t>(Numbers::e2m1(S::value(load<S>(from, i)) * scale));
    code[count] = 0;  // the upper half of the last byte where count is odd
    for (int64_t i = 0; i < (count + 1) / 2; ++i) to[i] = static_cast<std::byte>(code[2 * i] | code[2 * i + 1] << 4);
  }
};

template <class Numbers, bool Bytes>
void run(const Args& a) noexcept {
  if (a.source == Elem::bf16) return run_at<Mx<Bf16, Numbers, Bytes>>(a.isa, &a);
  if (a.source == Elem::f16) return run_at<Mx<F16, Numbers, Bytes>>(a.isa, &a);
  run_at<Mx<F32, Numbers, Bytes>>(a.isa, &a);
}

bool mx(const ir::QuantType& t, Elem code) {
  return t.code == code && t.scale == ir::ScaleValues::e8m0 && t.zero == ir::Zero::none && t.block == ir::Block{1, group};
}
bool makes_fp4(const ir::QuantType& t) noexcept {
  return mx(t, Elem::e2m1);
}
bool makes_fp8(const ir::QuantType& t) noexcept {
  return mx(t, Elem::e4m3);
}
Elem scale_e8m0(Elem) noexcept {
  return Elem::e8m0;
}

constexpr std::string_view modelopt_source = "nvidia-modelopt 0.47, export_hf_checkpoint, PyTorch on the CPU";
constexpr std::string_view compressed_source = "llm-compressor 0.14, compressed-tensors 0.19, PyTorch on the CPU";

}  // namespace

QB_RECIPE(mxfp4_modelopt) = {"mxfp4.modelopt", modelopt_source, Numerics::modelopt, makes_fp4, false, Share::own, scale_e8m0, false, 1, run<ModelOpt, false>};
QB_RECIPE(mxfp8_modelopt) = {"mxfp8.modelopt", modelopt_source, Numerics::modelopt, makes_fp8, false, Share::own, scale_e8m0, false, 1, run<ModelOpt, true>};
QB_RECIPE(mxfp4_llm_compressor) = {"mxfp4.llm_compressor", compressed_source, Numerics::llm_compressor, makes_fp4, false, Share::own, scale_e8m0, false, 1,
                                   run<Compressed, false>};
QB_RECIPE(mxfp8_llm_compressor) = {"mxfp8.llm_compressor", compressed_source, Numerics::llm_compressor, makes_fp8, false, Share::own, scale_e8m0, false, 1,
                                   run<Compressed, true>};

}  // namespace qb::recipe
