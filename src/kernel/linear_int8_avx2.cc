// Kernels that multiply integers with AVX2 (Haswell, Zen 1 to 3; processors with AVX-512 but no VNNI): bytes are widened to words, pmaddwd adds pairs of their
// products in 32 bits. pmaddubsw would be faster and saturates.
#include "kernel/integers.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/integer_body.h"
#include "kernel/sums_avx2.h"

namespace qb::kernel {
namespace {

struct Words256 : Sums256 {
  using X = int16_t;
  struct Operand {
    __m256i even_a, odd_a, even_b, odd_b;  // columns 0 and 2, 1 and 3, as words
  };
  static constexpr bool exchanged = true, short_groups = false;
  static constexpr int few = 4, mr = 4, nr = 1, group_mr = 2, group_nr = 1;
  // Zen 4 at 3.66 GHz without AVX-512, one core, 256 x 1024 weights in the second-level cache, processor time: 74 G products a second for 64 tokens; for one
  // token 50 G (int4 in groups of 128), 54 G (int8).
  static constexpr Rates rates{20, {0, 0, 0, 41, 53}, 20, few};

  QB_KI static Operand words(__m256i a, __m256i b) {
    const __m256i lower = _mm256_set1_epi16(0x00FF);
    return {_mm256_and_si256(a, lower), _mm256_srli_epi16(a, 8), _mm256_and_si256(b, lower), _mm256_srli_epi16(b, 8)};
  }
  QB_KI static Operand u8(const std::byte* line) { return words(half(line), half(line + 32)); }
  QB_KI static Operand int8(const std::byte* line) { return words(biased(line), biased(line + 32)); }
  QB_KI static void int4(const std::byte* line, Operand* o) {
    const __m256i a = half(line), b = half(line + 32);
    o[0] = words(low(a), low(b));
    o[1] = words(high(a), high(b));
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
