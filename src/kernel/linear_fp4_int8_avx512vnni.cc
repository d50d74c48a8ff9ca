// FP4 weights with VNNI, beside integer activations (of a token or a tensor) or NVFP4 ones: E2M1 numbers are halves of integers, so the sums of a block are
// exact, and half as many instructions multiply them as with bfloat16.
#if defined(__x86_64__)
#include "kernel/avx512_vnni.h"

namespace qb::kernel {

QB_KERNEL(linear_fp4_int8_avx512vnni) = integer_kernel<Vnni, Weights::fp4>("linear_fp4_int8_avx512vnni", vnni_needs);

}  // namespace qb::kernel
#endif
