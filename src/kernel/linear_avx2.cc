// Panel kernels for AVX2 with FMA (Haswell, Zen 1 to 3): 16 rows are two registers; the pairs of bfloat16 numbers are widened and multiplied in float32.
#include "kernel/panels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/panel_body.h"
#include "kernel/scales_avx2.h"

namespace qb::kernel {
namespace {

struct Float256 {
  using X = float;
  struct Acc {
    __m256 a, b;  // rows 0..7 and 8..15
  };
  struct Operand {
    Acc even, odd;
  };
  static constexpr int few = 4, mr = 4, nr = 1;
  // Zen 4 at 3.66 GHz without AVX-512, one core, 256 x 1024 weights in the second-level cache: 49.4 G products a second for 64 tokens; for one token 25.3 G
  // (bf16), 10.4 G (fp8), 15.4 G (nvfp4), 17.8 G (int4 in groups of 128), 20.8 G (int8).
  static constexpr Rates rates{13.5, {13, 3.6, 6.1, 7.6, 9.8, 12, 12}, 2.9, few};

  QB_KI static Acc zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  QB_KI static Acc load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  QB_KI static void store(float* p, Acc x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
  }
  QB_KI static Acc splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  QB_KI static Acc add(Acc x, Acc y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  QB_KI static Acc mul(Acc x, Acc y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  QB_KI static Acc mul_add(Acc x, Acc y, Acc z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
  QB_KI static __m256i half(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  QB_KI static __m256i upper() { return _mm256_set1_epi32(static_cast<int>(0xFFFF0000U)); }
  QB_KI static Operand widen(__m256i a, __m256i b) {
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))},
            {_mm256_castsi256_ps(_mm256_and_si256(a, upper())), _mm256_castsi256_ps(_mm256_and_si256(b, upper()))}};
  }
  QB_KI static Operand bf16(const std::byte* line) { return widen(half(line), half(line + 32)); }
  QB_KI static __m256 halves(const std::byte* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  QB_KI static Operand f16(const std::byte* line) { return {{halves(line), halves(line + 16)}, {halves(line + 32), halves(line + 48)}}; }
  QB_KI static Operand f32(const std::byte* line) {
    const auto* numbers = reinterpret_cast<const float*>(line);
    return {load(numbers), load(numbers + 16)};
  }
  QB_KI static __m256i pairs(__m256 even, __m256 odd) {
    return _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(even), 16), _mm256_and_si256(_mm256_castps_si256(odd), upper()));
  }
  QB_KI static void store_bf16(std::byte* line, Operand o) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(line), pairs(o.even.a, o.odd.a));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(line + 32), pairs(o.even.b, o.odd.b));
  }
  QB_KI static Acc dot(Acc a, Operand o, const X* x) { return mul_add(o.odd, splat(x[1]), mul_add(o.even, splat(x[0]), a)); }
  QB_KI static void fp8(const std::byte* line, Operand* o) {
    const __m256i a = half(line), b = half(line + 32), none = _mm256_setzero_si256();
    const __m256i la = _mm256_unpacklo_epi8(none, a), lb = _mm256_unpacklo_epi8(none, b);  // 8 rows x two codes, each in the upper byte of a half lane
    const __m256i ha = _mm256_unpackhi_epi8(none, a), hb = _mm256_unpackhi_epi8(none, b);
    o[0] = {{e4m3_avx2(_mm256_slli_epi32(la, 16)), e4m3_avx2(_mm256_slli_epi32(lb, 16))}, {e4m3_avx2(la), e4m3_avx2(lb)}};
    o[1] = {{e4m3_avx2(_mm256_slli_epi32(ha, 16)), e4m3_avx2(_mm256_slli_epi32(hb, 16))}, {e4m3_avx2(ha), e4m3_avx2(hb)}};
  }
  // Upper and lower byte of the bfloat16 number of each nibble, woven into the pairs (k0, k2) and (k1, k3) of each row.
  QB_KI static void nibbles(__m256i index, __m256i& first, __m256i& second) {
    const __m256i high =
        _mm256_shuffle_epi8(_mm256_setr_epi8(0, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40, -0x80, -0x41, -0x41, -0x41, -0x40, -0x40, -0x40, -0x40, 0, 0x3F, 0x3F,
                                             0x3F, 0x40, 0x40, 0x40, 0x40, -0x80, -0x41, -0x41, -0x41, -0x40, -0x40, -0x40, -0x40),
                            index);
    const __m256i low = _mm256_shuffle_epi8(_mm256_setr_epi8(0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40, 0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40,  //
                                                             0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40, 0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40),
                                            index);
    const __m256i bytes = _mm256_set1_epi16(0x00FF);
    first = _mm256_or_si256(_mm256_and_si256(low, bytes), _mm256_slli_epi16(high, 8));
    second = _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_andnot_si256(bytes, high));
  }
  QB_KI static void fp4(const std::byte* line, Operand* o) {
    const __m256i a = half(line), b = half(line + 32), mask = _mm256_set1_epi8(15);
    __m256i a0, a1, b0, b1;
    nibbles(_mm256_and_si256(a, mask), a0, a1);
    nibbles(_mm256_and_si256(b, mask), b0, b1);
    o[0] = widen(a0, b0);
    o[1] = widen(a1, b1);
    nibbles(_mm256_and_si256(_mm256_srli_epi16(a, 4), mask), a0, a1);
    nibbles(_mm256_and_si256(_mm256_srli_epi16(b, 4), mask), b0, b1);
    o[2] = widen(a0, b0);
    o[3] = widen(a1, b1);
  }
  struct Zero {
    __m256i a, b;  // rows 0..7 and 8..15; of int4, what takes code + 8 to code - zero
  };
  QB_KI static __m256i eight(const std::byte* bytes) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))); }
  QB_KI static Zero zeros4(const std::byte* bytes) {
    const __m256i bias = _mm256_set1_epi32(8);
    return {_mm256_add_epi32(eight(bytes), bias), _mm256_add_epi32(eight(bytes + 8), bias)};
  }
  QB_KI static Zero zeros8(const std::byte* bytes) { return {eight(bytes), eight(bytes + 8)}; }
  template <int at>
  QB_KI static Acc nibble(__m256i a, __m256i b, const Zero& zero) {
    const __m256i mask = _mm256_set1_epi32(15);
    return {_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(_mm256_srli_epi32(a, at), mask), zero.a)),
            _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(_mm256_srli_epi32(b, at), mask), zero.b))};
  }
  QB_KI static void int4(const std::byte* line, const Zero& zero, Operand* o) {
    const __m256i a = half(line), b = half(line + 32);
    o[0] = {nibble<0>(a, b, zero), nibble<16>(a, b, zero)};
    o[1] = {nibble<8>(a, b, zero), nibble<24>(a, b, zero)};
    o[2] = {nibble<4>(a, b, zero), nibble<20>(a, b, zero)};
    o[3] = {nibble<12>(a, b, zero), nibble<28>(a, b, zero)};
  }
  QB_KI static void int4(const std::byte* line, Operand* o) {
    const __m256i bias = _mm256_set1_epi32(8);
    int4(line, {bias, bias}, o);
  }
  template <int at>
  QB_KI static Acc byte(__m256i a, __m256i b, const Zero& zero) {
    return {_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srai_epi32(_mm256_slli_epi32(a, 24 - at), 24), zero.a)),
            _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srai_epi32(_mm256_slli_epi32(b, 24 - at), 24), zero.b))};
  }
  QB_KI static void int8(const std::byte* line, const Zero& zero, Operand* o) {
    const __m256i a = half(line), b = half(line + 32);
    o[0] = {byte<0>(a, b, zero), byte<16>(a, b, zero)};
    o[1] = {byte<8>(a, b, zero), byte<24>(a, b, zero)};
  }
  QB_KI static void int8(const std::byte* line, Operand* o) { int8(line, {_mm256_setzero_si256(), _mm256_setzero_si256()}, o); }
  QB_KI static Acc powers(const std::byte* bytes) { return {powers_avx2(bytes), powers_avx2(bytes + 8)}; }
  QB_KI static Acc scales(const std::byte* bytes) { return {scales_avx2(bytes), scales_avx2(bytes + 8)}; }
  static constexpr float scale_unit = 1;
  QB_KI static void two_scales(const std::byte* bytes, Acc* s) {
    s[0] = scales(bytes);
    s[1] = scales(bytes + 16);
  }
  QB_KI static Operand times(Operand o, Acc scale) { return {mul(o.even, scale), mul(o.odd, scale)}; }
};

}  // namespace

QB_KERNEL(linear_bf16_f32_avx2) = panel_kernel<Float256, Weights::bf16>("linear_bf16_f32_avx2", host::Feature::avx2);
QB_KERNEL(linear_f16_f32_avx2) = panel_kernel<Float256, Weights::f16>("linear_f16_f32_avx2", host::Feature::avx2);
QB_KERNEL(linear_f32_f32_avx2) = panel_kernel<Float256, Weights::f32>("linear_f32_f32_avx2", host::Feature::avx2);
QB_KERNEL(linear_fp8_f32_avx2) = panel_kernel<Float256, Weights::fp8>("linear_fp8_f32_avx2", host::Feature::avx2);
QB_KERNEL(linear_fp4_f32_avx2) = panel_kernel<Float256, Weights::fp4>("linear_fp4_f32_avx2", host::Feature::avx2);
QB_KERNEL(linear_int4_f32_avx2) = panel_kernel<Float256, Weights::int4>("linear_int4_f32_avx2", host::Feature::avx2);
QB_KERNEL(linear_int8_f32_avx2) = panel_kernel<Float256, Weights::int8>("linear_int8_f32_avx2", host::Feature::avx2);

}  // namespace qb::kernel
#endif
