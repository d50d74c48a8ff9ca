// Panel kernels for AVX-512 without BF16 dot products (Skylake-X, Ice Lake): the pairs of bfloat16 numbers are widened and multiplied in float32.
#include "kernel/panels.h"

#if defined(__x86_64__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's headers make undefined vectors that way, and warn of it (GCC bug 105593)
#endif
#include <immintrin.h>

#include <array>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/panel_body.h"
#include "kernel/scales_avx512.h"
#include "kernel/sums_avx512.h"

namespace qb::kernel {
namespace {

struct alignas(64) Table {
  std::array<uint16_t, 32> e2m1{}, int4{};  // twice, so that the index's fifth bit does not matter
};
const Table table = [] {
  Table t;
  for (size_t c = 0; c < 32; ++c) {
    t.e2m1[c] = encode_bf16(decode_e2m1(c & 15U));
    t.int4[c] = encode_bf16(static_cast<float>(c & 15U) - 8);
  }
  return t;
}();

struct Float512 : FloatSums512 {
  using X = float;
  struct Operand {
    __m512 even, odd;
  };
  static constexpr int few = 8, mr = 6, nr = 2;
  // Zen 4 at 3.66 GHz without its BF16 instructions, one core, 256 x 1024 weights in the second-level cache: 52.7 G products a second for 64 tokens; for one
  // token 25 G (bf16), 13.3 G (fp8), 27.3 G (nvfp4), 33.7 G (int4 in groups of 128), 20.9 G (int8). Plain weights from memory:
  // 2 to 9 % faster than the form of AVX2.
  static constexpr Rates rates{14.4, {14, 4.8, 15.6, 25, 9.5, 13, 13}, 3.8, few};

  QB_KI static __m512i upper() { return _mm512_set1_epi32(static_cast<int>(0xFFFF0000U)); }
  QB_KI static Operand widen(__m512i pairs) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), _mm512_castsi512_ps(_mm512_and_si512(pairs, upper()))};
  }
  QB_KI static Operand bf16(const std::byte* line) { return widen(_mm512_loadu_si512(line)); }
  QB_KI static Acc halves(const std::byte* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  QB_KI static Operand f16(const std::byte* line) { return {halves(line), halves(line + 32)}; }
  QB_KI static Operand f32(const std::byte* line) { return {_mm512_loadu_ps(line), _mm512_loadu_ps(line + 64)}; }
  QB_KI static void store_bf16(std::byte* line, Operand o) {
    const __m512i even = _mm512_srli_epi32(_mm512_castps_si512(o.even), 16), odd = _mm512_castps_si512(o.odd);
    _mm512_storeu_si512(line, _mm512_ternarylogic_epi32(even, odd, upper(), 0xF8));  // even | (odd & upper)
  }
  QB_KI static Acc dot(Acc a, Operand o, const X* x) { return _mm512_fmadd_ps(o.odd, _mm512_set1_ps(x[1]), _mm512_fmadd_ps(o.even, _mm512_set1_ps(x[0]), a)); }
  // The code in the top byte of each lane: its magnitude at the place of float32's exponent and fraction is 2^120 too small, also where it is subnormal.
  QB_KI static Acc e4m3(__m512i top) {
    const __m512i magnitude = _mm512_and_si512(_mm512_srli_epi32(top, 4), _mm512_set1_epi32(0x07F00000));
    const __mmask16 nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x07F00000));
    const __m512i value = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(0x1p120F)));
    const __m512i quiet = _mm512_mask_mov_epi32(value, nan, _mm512_set1_epi32(0x7FC00000));
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(quiet, top, _mm512_set1_epi32(INT32_MIN), 0xF8));  // quiet | (top & sign)
  }
  QB_KI static void fp8(const std::byte* line, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line), none = _mm512_setzero_si512();
    const __m512i low = _mm512_unpacklo_epi8(none, v), high = _mm512_unpackhi_epi8(none, v);  // 16 rows x two codes, each in the upper byte of a half lane
    o[0] = {e4m3(_mm512_slli_epi32(low, 16)), e4m3(low)};
    o[1] = {e4m3(_mm512_slli_epi32(high, 16)), e4m3(high)};
  }
  QB_KI static void fp4(const std::byte* line, Operand* o) { nibbles(line, table.e2m1.data(), o); }
  QB_KI static void int4(const std::byte* line, Operand* o) { nibbles(line, table.int4.data(), o); }
  QB_KI static void nibbles(const std::byte* line, const uint16_t* numbers, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line), t = _mm512_load_si512(numbers);
    o[0] = widen(_mm512_permutexvar_epi16(v, t));
    o[1] = widen(_mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), t));
    o[2] = widen(_mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), t));
    o[3] = widen(_mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), t));
  }
  using Zero = __m512i;  // of int4, what takes code + 8 to code - zero
  QB_KI static Zero zeros8(const std::byte* bytes) { return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))); }
  QB_KI static Zero zeros4(const std::byte* bytes) { return _mm512_add_epi32(zeros8(bytes), _mm512_set1_epi32(8)); }
  template <int at>
  QB_KI static Acc nibble(__m512i v, Zero zero) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_and_si512(_mm512_srli_epi32(v, at), _mm512_set1_epi32(15)), zero));
  }
  QB_KI static void int4(const std::byte* line, Zero zero, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line);
    o[0] = {nibble<0>(v, zero), nibble<16>(v, zero)};
    o[1] = {nibble<8>(v, zero), nibble<24>(v, zero)};
    o[2] = {nibble<4>(v, zero), nibble<20>(v, zero)};
    o[3] = {nibble<12>(v, zero), nibble<28>(v, zero)};
  }
  template <int at>
  QB_KI static Acc byte(__m512i v, Zero zero) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srai_epi32(_mm512_slli_epi32(v, 24 - at), 24), zero));
  }
  QB_KI static void int8(const std::byte* line, Zero zero, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line);
    o[0] = {byte<0>(v, zero), byte<16>(v, zero)};
    o[1] = {byte<8>(v, zero), byte<24>(v, zero)};
  }
  QB_KI static void int8(const std::byte* line, Operand* o) { int8(line, _mm512_setzero_si512(), o); }
  QB_KI static Acc powers(const std::byte* bytes) { return powers_avx512(bytes); }
  QB_KI static Acc scales(const std::byte* bytes) {
    return e4m3(_mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))), 24));
  }
  static constexpr float scale_unit = 1;
  QB_KI static void two_scales(const std::byte* bytes, Acc* s) {
    s[0] = scales(bytes);
    s[1] = scales(bytes + 16);
  }
  QB_KI static Operand times(Operand o, Acc scale) { return {_mm512_mul_ps(o.even, scale), _mm512_mul_ps(o.odd, scale)}; }
};

constexpr host::Feature needs = host::Feature::avx2 | host::Feature::avx512;

}  // namespace

QB_KERNEL(linear_bf16_f32_avx512) = panel_kernel<Float512, Weights::bf16>("linear_bf16_f32_avx512", needs);
QB_KERNEL(linear_f16_f32_avx512) = panel_kernel<Float512, Weights::f16>("linear_f16_f32_avx512", needs);
QB_KERNEL(linear_f32_f32_avx512) = panel_kernel<Float512, Weights::f32>("linear_f32_f32_avx512", needs);
QB_KERNEL(linear_fp8_f32_avx512) = panel_kernel<Float512, Weights::fp8>("linear_fp8_f32_avx512", needs);
QB_KERNEL(linear_fp4_f32_avx512) = panel_kernel<Float512, Weights::fp4>("linear_fp4_f32_avx512", needs);
QB_KERNEL(linear_int4_f32_avx512) = panel_kernel<Float512, Weights::int4>("linear_int4_f32_avx512", needs);
QB_KERNEL(linear_int8_f32_avx512) = panel_kernel<Float512, Weights::int8>("linear_int8_f32_avx512", needs);

}  // namespace qb::kernel
#endif
