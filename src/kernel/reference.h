// The reference kernel's sums as they are before they are rounded: what ranks add up that have some columns of a matrix each.
#pragma once

#include "kernel/kernel.h"

namespace qb::kernel {

extern const Kernel kernel_linear_ref;

// As the kernel's `run`, into sums [m, n] in double, the bias added; y is left alone.
void run_reference_sums(const RunArgs& args, double* sums) noexcept;

}  // namespace qb::kernel
