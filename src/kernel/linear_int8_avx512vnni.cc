// Kernels that multiply integers with VNNI: codes of weights by codes of activations, and scales after the sums.
#if defined(__x86_64__)
#include "kernel/avx512_vnni.h"

namespace qb::kernel {

QB_KERNEL(linear_int4_int8_avx512vnni) = integer_kernel<Vnni, Weights::int4>("linear_int4_int8_avx512vnni", vnni_needs);
QB_KERNEL(linear_int8_int8_avx512vnni) = integer_kernel<Vnni, Weights::int8>("linear_int8_int8_avx512vnni", vnni_needs);

}  // namespace qb::kernel
#endif
