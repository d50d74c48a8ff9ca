// The instructions of BF16 dot products and byte permutations (Zen 4, Sapphire Rapids) for panel_body.h. For files that are compiled for x86-64 alone;
// everything has internal linkage.
//
// vdpbf16ps is fma(a1, b1, fma(a0, b0, c)) with subnormal inputs and results taken for zero (checked on two million random operands on Zen 4; the manuals of
// both makers say the same). E4M3 becomes bfloat16 by two 128-byte tables (upper and lower byte of the magnitude) and the code's sign: exact for all 254
// numbers, NaN stays. E2M1 becomes bfloat16 by one table of 16 words that stands twice in a register, so that the index's fifth bit, which belongs to the
// neighbour, does not matter: no masks.
#pragma once

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's headers make undefined vectors that way, and warn of it (GCC bug 105593)
#endif
#include <immintrin.h>

#include <array>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/panel_body.h"
#include "kernel/scales_avx512.h"
#include "kernel/sums_avx512.h"

namespace qb::kernel {
namespace {

struct alignas(64) Tables {
  std::array<uint8_t, 128> high{}, low{};          // of e4m3
  std::array<uint8_t, 128> int_high{}, int_low{};  // of the integers 0 to 127
  std::array<uint16_t, 32> e2m1{}, int4{};         // twice the same
  std::array<uint16_t, 32> five_bits{};            // of two's complement
};
const Tables tables = [] {
  Tables t;
  for (size_t c = 0; c < 128; ++c) {
    const uint16_t b = encode_bf16(decode_e4m3(static_cast<uint8_t>(c)));
    t.high[c] = static_cast<uint8_t>(b >> 8);
    t.low[c] = static_cast<uint8_t>(b & 0xFFU);
    const uint16_t i = encode_bf16(static_cast<float>(c));
    t.int_high[c] = static_cast<uint8_t>(i >> 8);
    t.int_low[c] = static_cast<uint8_t>(i & 0xFFU);
  }
  for (size_t c = 0; c < 32; ++c) {
    t.e2m1[c] = encode_bf16(decode_e2m1(c & 15U));
    t.int4[c] = encode_bf16(static_cast<float>(c & 15U) - 8);
    t.five_bits[c] = encode_bf16(static_cast<float>(c) - (c < 16 ? 0 : 32));
  }
  return t;
}();

struct Bf16Dot : FloatSums512 {
  using X = uint16_t;
  using Operand = __m512i;
  static constexpr int few = 8, mr = 6, nr = 4;
  // Zen 4 at 3.66 GHz, one core, 256 x 1024 weights in the second-level cache, processor time: 112 G products a second for 192 tokens; for one token 45.7 G
  // (bf16, 91 GB/s), 36.3 G (fp8, 36 GB/s), 51.6 G (nvfp4, 29 GB/s), 63.6 G (int4 in groups of 128, 34 GB/s; 49 G with zero points), 27.6 G (int8). Not tried:
  // Intel's parts.
  static constexpr Rates rates{30.6, {21, 14.6, 26, 40, 10, 0, 0}, 10, few};

  QB_KI static Operand bf16(const std::byte* line) { return _mm512_loadu_si512(line); }
  QB_KI static void store_bf16(std::byte* line, Operand o) { _mm512_storeu_si512(line, o); }
  QB_KI static Acc dot(Acc a, Operand o, const X* x) {
    int pair;
    std::memcpy(&pair, x, sizeof pair);
    return _mm512_dpbf16_ps(a, (__m512bh)o, (__m512bh)_mm512_set1_epi32(pair));
  }
  QB_KI static void fp8(const std::byte* line, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line);
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(tables.low.data()), v, _mm512_load_si512(tables.low.data() + 64));
    __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(tables.high.data()), v, _mm512_load_si512(tables.high.data() + 64));
    high = _mm512_ternarylogic_epi32(high, v, _mm512_set1_epi8(-128), 0xF8);  // high | (v & sign)
    o[0] = _mm512_unpacklo_epi8(low, high);
    o[1] = _mm512_unpackhi_epi8(low, high);
  }
  QB_KI static void fp4(const std::byte* line, Operand* o) { nibbles(line, tables.e2m1.data(), o); }
  QB_KI static void int4(const std::byte* line, Operand* o) { nibbles(line, tables.int4.data(), o); }
  QB_KI static void nibbles(const std::byte* line, const uint16_t* numbers, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line), t = _mm512_load_si512(numbers);
    o[0] = _mm512_permutexvar_epi16(v, t);
    o[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), t);
    o[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), t);
    o[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), t);
  }
  using Zero = __m512i;
  // In each byte of a row's four: what takes code + 8 to code - zero, a number of five bits.
  QB_KI static Zero zeros4(const std::byte* bytes) {
    const __m512i z = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    const __m512i first = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    return _mm512_add_epi8(_mm512_shuffle_epi8(z, first), _mm512_set1_epi8(8));
  }
  QB_KI static void int4(const std::byte* line, Zero zero, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line), t = _mm512_load_si512(tables.five_bits.data()), mask = _mm512_set1_epi8(15);
    const __m512i low = _mm512_sub_epi8(_mm512_and_si512(v, mask), zero), high = _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(v, 4), mask), zero);
    o[0] = _mm512_permutexvar_epi16(low, t);
    o[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(low, 8), t);
    o[2] = _mm512_permutexvar_epi16(high, t);
    o[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(high, 8), t);
  }
  // Upper and lower byte of the magnitude by tables, as for E4M3; -128, whose magnitude is beyond them, has the upper byte of its own and a lower one of 0.
  QB_KI static void int8(const std::byte* line, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line), magnitude = _mm512_abs_epi8(v);
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(tables.int_low.data()), magnitude, _mm512_load_si512(tables.int_low.data() + 64));
    __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(tables.int_high.data()), magnitude, _mm512_load_si512(tables.int_high.data() + 64));
    high = _mm512_ternarylogic_epi32(high, v, _mm512_set1_epi8(-128), 0xF8);  // high | (v & sign)
    high = _mm512_mask_mov_epi8(high, _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(-128)), _mm512_set1_epi8(static_cast<char>(0xC3)));
    const __m512i bytes = _mm512_set1_epi16(0x00FF);
    o[0] = _mm512_ternarylogic_epi32(low, _mm512_slli_epi16(high, 8), bytes, 0xEC);  // (low & bytes) | high << 8
    o[1] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(low, 8), high, bytes, 0xF4);  // low >> 8 | (high & ~bytes)
  }
  // Numbers of nine bits, for which there is no table: by way of float32.
  QB_KI static Zero zeros8(const std::byte* bytes) {
    const __m512i z = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    return _mm512_or_si512(_mm512_slli_epi32(z, 16), _mm512_and_si512(z, _mm512_set1_epi32(0xFFFF)));
  }
  QB_KI static Operand words(__m512i w) {
    const __m512i even = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(w, 16), 16)));
    const __m512i odd = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32(w, 16)));
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(even, 16), odd, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U)), 0xF8);  // even >> 16 | (odd & upper)
  }
  QB_KI static void int8(const std::byte* line, Zero zero, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line);
    o[0] = words(_mm512_sub_epi16(_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), zero));
    o[1] = words(_mm512_sub_epi16(_mm512_srai_epi16(v, 8), zero));
  }
  QB_KI static Acc powers(const std::byte* bytes) { return powers_avx512(bytes); }
  static constexpr float scale_unit = e4m3_unit_avx512;
  QB_KI static void two_scales(const std::byte* bytes, Acc* s) { two_e4m3_avx512(bytes, s); }
  QB_KI static Acc scales(const std::byte* bytes) { return e4m3_avx512(bytes); }
  QB_KI static Operand times(Operand o, Acc scale) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
    const __m512i even = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(o, 16)), scale));
    const __m512i odd = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_and_si512(o, upper)), scale));
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(even, 16), odd, upper, 0xF8);  // even >> 16 | (odd & upper)
  }
};

constexpr host::Feature bf16_needs = host::Feature::avx2 | host::Feature::avx512 | host::Feature::avx512_bf16;

}  // namespace
}  // namespace qb::kernel
