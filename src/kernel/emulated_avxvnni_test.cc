// The kernels for AVX-VNNI, with the instruction by those of AVX2.
#include "kernel/emulated.h"
#include "kernel/integers.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/vnni_256.h"

namespace qb::kernel {
namespace {

// As words: two products of a byte without and a byte with sign fit into 32 bits with room.
struct ByWords {
  QB_KI static __m256i add(__m256i sums, __m256i u, __m256i s) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(0x00FF)), _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
  }
};
using V = Vnni256<ByWords>;

constexpr Kernel int4 = integer_kernel<V, Weights::int4>("linear_int4_int8_avxvnni_emulated", host::Feature::avx2);
constexpr Kernel int8 = integer_kernel<V, Weights::int8>("linear_int8_int8_avxvnni_emulated", host::Feature::avx2);
constexpr Kernel fp4 = integer_kernel<V, Weights::fp4>("linear_fp4_int8_avxvnni_emulated", host::Feature::avx2);

}  // namespace

std::span<const Kernel* const> emulated_avx_vnni() {
  static constexpr const Kernel* all[] = {&int4, &int8, &fp4};
  return all;
}

}  // namespace qb::kernel
#else
namespace qb::kernel {
std::span<const Kernel* const> emulated_avx_vnni() {
  return {};
}
}  // namespace qb::kernel
#endif
