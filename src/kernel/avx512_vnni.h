// The instructions of VNNI (Ice Lake, Zen 4 and later) for integer_body.h: vpdpbusd adds four products of a byte without and a byte with sign to each of 16
// sums of 32 bits, and does not saturate. For files that are compiled for x86-64 alone; everything has internal linkage.
#pragma once

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's headers make undefined vectors that way, and warn of it (GCC bug 105593)
#endif
#include <immintrin.h>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/integer_body.h"
#include "kernel/scales_avx512.h"

namespace qb::kernel {
namespace {

struct Vnni {
  using X = int8_t;
  using Int = __m512i;
  using Float = __m512;
  using Operand = __m512i;
  static constexpr bool exchanged = false, short_groups = true;
  static constexpr int few = 8, mr = 6, nr = 4, group_mr = 6, group_nr = 2;
  // Zen 4 at 3.66 GHz, one core, 256 x 1024 weights in the second-level cache, processor time: 190 G products a second for 192 tokens (the instruction alone:
  // 228 G); for one token 85 G (int4 in groups of 128, 45 GB/s), 82 G (int8, 82 GB/s). Not tried: Intel's parts.
  static constexpr Rates rates{52, {0, 0, 26, 42, 39}, 30, few};

  QB_KI static Int zero() { return _mm512_setzero_si512(); }
  QB_KI static Int load(const int32_t* p) { return _mm512_loadu_si512(p); }
  QB_KI static void store(int32_t* p, Int a) { _mm512_storeu_si512(p, a); }
  QB_KI static Int splat(int32_t i) { return _mm512_set1_epi32(i); }
  QB_KI static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  QB_KI static Int minus_product(Int a, Int b, int32_t i) { return _mm512_sub_epi32(a, _mm512_mullo_epi32(b, splat(i))); }
  QB_KI static Int zeros(const std::byte* bytes) { return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))); }
  QB_KI static Float float_zero() { return _mm512_setzero_ps(); }
  QB_KI static Float load(const float* p) { return _mm512_loadu_ps(p); }
  QB_KI static void store(float* p, Float a) { _mm512_storeu_ps(p, a); }
  QB_KI static Float mul_add(Int a, Float b, Float c) { return _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), b, c); }
  QB_KI static Operand u8(const std::byte* line) { return _mm512_loadu_si512(line); }
  QB_KI static Operand int8(const std::byte* line) { return _mm512_xor_si512(_mm512_loadu_si512(line), _mm512_set1_epi8(-128)); }
  QB_KI static void int4(const std::byte* line, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line), mask = _mm512_set1_epi8(15);
    o[0] = _mm512_and_si512(v, mask);
    o[1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), mask);
  }
  QB_KI static void bytes8(const std::byte* line, std::byte* out) { _mm512_storeu_si512(out, int8(line)); }
  QB_KI static void bytes4(const std::byte* line, std::byte* out) {
    Operand o[2];
    int4(line, o);
    _mm512_storeu_si512(out, o[0]);
    _mm512_storeu_si512(out + 64, o[1]);
  }
  QB_KI static Int dot(Int a, Operand o, const X* x) {
    int four;
    std::memcpy(&four, x, sizeof four);
    return _mm512_dpbusd_epi32(a, o, _mm512_set1_epi32(four));
  }
  // Twice an E2M1 number, plus 12.
  QB_KI static Operand doubled(Operand codes) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm512_shuffle_epi8(table, codes);
  }
  QB_KI static void fp4(const std::byte* line, Operand* o) {
    int4(line, o);
    o[0] = doubled(o[0]);
    o[1] = doubled(o[1]);
  }
  QB_KI static void bytes_fp4(const std::byte* line, std::byte* out) {
    Operand o[2];
    fp4(line, o);
    _mm512_storeu_si512(out, o[0]);
    _mm512_storeu_si512(out + 64, o[1]);
  }
  QB_KI static Float splat(float x) { return _mm512_set1_ps(x); }
  QB_KI static Float times(Float a, Float b) { return _mm512_mul_ps(a, b); }
  QB_KI static Float powers(const std::byte* bytes) { return powers_avx512(bytes); }
  static constexpr float scale_unit = e4m3_unit_avx512;
  QB_KI static void two_scales(const std::byte* bytes, Float* s) { two_e4m3_avx512(bytes, s); }
  QB_KI static Float scales(const std::byte* bytes) { return e4m3_avx512(bytes); }
};

constexpr host::Feature vnni_needs = host::Feature::avx2 | host::Feature::avx512 | host::Feature::avx512_vnni;

}  // namespace
}  // namespace qb::kernel
