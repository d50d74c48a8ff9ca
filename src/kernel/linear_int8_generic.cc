// Kernels that multiply integers in plain C++: any processor, loops over 16 rows that compilers make vector code of.
#include "kernel/generic_integers.h"

namespace qb::kernel {

QB_KERNEL(linear_int4_int8_generic) = integer_kernel<Words<int16_t>, Weights::int4>("linear_int4_int8_generic", host::Feature::none);
QB_KERNEL(linear_int8_int8_generic) = integer_kernel<Words<int16_t>, Weights::int8>("linear_int8_int8_generic", host::Feature::none);

}  // namespace qb::kernel
