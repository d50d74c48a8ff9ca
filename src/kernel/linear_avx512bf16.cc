// Panel kernels for AVX-512 with BF16 dot products and byte permutations (Zen 4, Sapphire Rapids).
#if defined(__x86_64__)
#include "kernel/avx512_bf16.h"

namespace qb::kernel {

QB_KERNEL(linear_bf16_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::bf16>("linear_bf16_bf16_avx512bf16", bf16_needs);
QB_KERNEL(linear_fp8_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::fp8>("linear_fp8_bf16_avx512bf16", bf16_needs);
QB_KERNEL(linear_fp4_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::fp4>("linear_fp4_bf16_avx512bf16", bf16_needs);
QB_KERNEL(linear_int4_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::int4>("linear_int4_bf16_avx512bf16", bf16_needs);
QB_KERNEL(linear_int8_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::int8>("linear_int8_bf16_avx512bf16", bf16_needs);

}  // namespace qb::kernel
#endif
