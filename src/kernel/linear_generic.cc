// Panel kernels in plain C++: any processor, tables for the codes, loops over 16 rows that compilers make vector code of.
#include "kernel/generic_panels.h"

namespace qb::kernel {

QB_KERNEL(linear_bf16_f32_generic) = panel_kernel<Generic<float>, Weights::bf16>("linear_bf16_f32_generic", host::Feature::none);
QB_KERNEL(linear_f16_f32_generic) = panel_kernel<Generic<float>, Weights::f16>("linear_f16_f32_generic", host::Feature::none);
QB_KERNEL(linear_f32_f32_generic) = panel_kernel<Generic<float>, Weights::f32>("linear_f32_f32_generic", host::Feature::none);
QB_KERNEL(linear_fp8_f32_generic) = panel_kernel<Generic<float>, Weights::fp8>("linear_fp8_f32_generic", host::Feature::none);
QB_KERNEL(linear_fp4_f32_generic) = panel_kernel<Generic<float>, Weights::fp4>("linear_fp4_f32_generic", host::Feature::none);
QB_KERNEL(linear_int4_f32_generic) = panel_kernel<Generic<float>, Weights::int4>("linear_int4_f32_generic", host::Feature::none);
QB_KERNEL(linear_int8_f32_generic) = panel_kernel<Generic<float>, Weights::int8>("linear_int8_f32_generic", host::Feature::none);

}  // namespace qb::kernel
