// Kernels that multiply integers with AVX2 (Haswell, Zen 1 to 3; processors with AVX-512 but no VNNI): bytes are widened to words, pmaddwd adds pairs of their
// products in 32 bits. pmaddubsw would be faster and saturates.
#include "kernel/integers.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/integer_body.h"

namespace qb::kernel {
namespace {

struct Words256 {
  using X = int16_t;
  struct Int {
    __m256i a, b;  // rows 0..7 and 8..15
  };
  struct Float {
    __m256 a, b;
  };
  struct Operand {
    __m256i even_a, odd_a, even_b, odd_b;  // columns 0 and 2, 1 and 3, as words
  };
  static constexpr bool exchanged = true, short_groups = false;
  static constexpr int few = 4, mr = 4, nr = 1, group_mr = 2, group_nr = 1;
  // Zen 4 at 3.66 GHz without AVX-512, one core, 256 x 1024 weights in the second-level cache, processor time: 74 G products a second for 64 tokens; for one
  // token 50 G (int4 in groups of 128), 54 G (int8).
  static constexpr Rates rates{20, {0, 0, 0, 41, 53}, 20, few};

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
  QB_KI static Operand words(__m256i a, __m256i b) {
    const __m256i lower = _mm256_set1_epi16(0x00FF);
    return {_mm256_and_si256(a, lower), _mm256_srli_epi16(a, 8), _mm256_and_si256(b, lower), _mm256_srli_epi16(b, 8)};
  }
  QB_KI static Operand u8(const std::byte* line) { return words(half(line), half(line + 32)); }
  QB_KI static __m256i biased(const std::byte* p) { return _mm256_xor_si256(half(p), _mm256_set1_epi8(-128)); }
  QB_KI static Operand int8(const std::byte* line) { return words(biased(line), biased(line + 32)); }
  QB_KI static __m256i low(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
  QB_KI static __m256i high(__m256i v) { return low(_mm256_srli_epi16(v, 4)); }
  QB_KI static void int4(const std::byte* line, Operand* o) {
    const __m256i a = half(line), b = half(line + 32);
    o[0] = words(low(a), low(b));
    o[1] = words(high(a), high(b));
  }
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
  QB_KI static __m256i pair(const X* x) {
    int both;
    std::memcpy(&both, x, sizeof both);
    return _mm256_set1_epi32(both);
  }
  QB_KI static Int dot(const Int& t, const Operand& o, const X* x) {
    const __m256i even = pair(x), odd = pair(x + 2);
    return {_mm256_add_epi32(t.a, _mm256_add_epi32(_mm256_madd_epi16(o.even_a, even), _mm256_madd_epi16(o.odd_a, odd))),
            _mm256_add_epi32(t.b, _mm256_add_epi32(_mm256_madd_epi16(o.even_b, even), _mm256_madd_epi16(o.odd_b, odd)))};
  }
};

}  // namespace

QB_KERNEL(linear_int4_int8_avx2) = integer_kernel<Words256, Weights::int4>("linear_int4_int8_avx2", host::Feature::avx2);
QB_KERNEL(linear_int8_int8_avx2) = integer_kernel<Words256, Weights::int8>("linear_int8_int8_avx2", host::Feature::avx2);

}  // namespace qb::kernel
#endif
