// Sixteen sums of 32 bits as two registers of AVX2, and bytes of panels, for integer_body.h. As that, compiled for the instruction set of the including file,
// which defines QB_KI; everything has internal linkage.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qb::kernel {
namespace {

struct Sums256 {
  struct Int {
    __m256i a, b;  // rows 0..7 and 8..15
  };
  struct Float {
    __m256 a, b;
  };

  QB_KI static Int zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  QB_KI static __m256i half(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  QB_KI static Int load(const int32_t* p) { return {half(p), half(p + 8)}; }
  QB_KI static void store(int32_t* p, const Int& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
  }
  QB_KI static Int splat(int32_t i) { return {_mm256_set1_epi32(i), _mm256_set1_epi32(i)}; }
  QB_KI static Int add(const Int& x, const Int& y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
  QB_KI static Int minus_product(const Int& x, const Int& y, int32_t i) {
    const __m256i all = _mm256_set1_epi32(i);
    return {_mm256_sub_epi32(x.a, _mm256_mullo_epi32(y.a, all)), _mm256_sub_epi32(x.b, _mm256_mullo_epi32(y.b, all))};
  }
  QB_KI static __m256i eight(const std::byte* bytes) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))); }
  QB_KI static Int zeros(const std::byte* bytes) { return {eight(bytes), eight(bytes + 8)}; }
  QB_KI static Float float_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  QB_KI static Float load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  QB_KI static void store(float* p, const Float& x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
  }
  QB_KI static Float splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  QB_KI static Float times(const Float& x, const Float& y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  QB_KI static Float mul_add(const Int& x, const Float& y, const Float& z) {
    return {_mm256_fmadd_ps(_mm256_cvtepi32_ps(x.a), y.a, z.a), _mm256_fmadd_ps(_mm256_cvtepi32_ps(x.b), y.b, z.b)};
  }
  QB_KI static __m256i biased(const std::byte* p) { return _mm256_xor_si256(half(p), _mm256_set1_epi8(-128)); }
  QB_KI static __m256i low(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
  QB_KI static __m256i high(__m256i v) { return low(_mm256_srli_epi16(v, 4)); }
  QB_KI static void put(std::byte* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  QB_KI static void bytes8(const std::byte* line, std::byte* out) {
    put(out, biased(line));
    put(out + 32, biased(line + 32));
  }
  QB_KI static void bytes4(const std::byte* line, std::byte* out) {
    const __m256i a = half(line), b = half(line + 32);
    put(out, low(a));
    put(out + 32, low(b));
    put(out + 64, high(a));
    put(out + 96, high(b));
  }
};

}  // namespace
}  // namespace qb::kernel
