// Kernels that multiply integers with AVX-VNNI, where there is no AVX-512 (Intel's client processors since Alder Lake): codes of weights by codes of
// activations, and scales after the sums. FP4 weights too, which are halves of integers.
#include "kernel/integers.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2,avxvnni")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/vnni_256.h"

namespace qb::kernel {
namespace {

struct AvxVnni {
  QB_KI static __m256i add(__m256i sums, __m256i u, __m256i s) { return _mm256_dpbusd_avx_epi32(sums, u, s); }
};
using V = Vnni256<AvxVnni>;

constexpr host::Feature needs = host::Feature::avx2 | host::Feature::avx_vnni;

}  // namespace

QB_KERNEL(linear_int4_int8_avxvnni) = integer_kernel<V, Weights::int4>("linear_int4_int8_avxvnni", needs);
QB_KERNEL(linear_int8_int8_avxvnni) = integer_kernel<V, Weights::int8>("linear_int8_int8_avxvnni", needs);
QB_KERNEL(linear_fp4_int8_avxvnni) = integer_kernel<V, Weights::fp4>("linear_fp4_int8_avxvnni", needs);

}  // namespace qb::kernel
#endif
