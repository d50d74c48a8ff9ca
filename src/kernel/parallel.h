// One call of a kernel on the threads of a pool: activations are quantized a few tokens to each thread, then the rows of the weight are shared out. The result
// does not depend on the number of threads.
#pragma once

#include "host/threads.h"
#include "kernel/kernel.h"

namespace qb::kernel {

// `all` has all rows of the weight.
void prepare_on(const Kernel& kernel, const RunArgs& all, host::ThreadPool& pool);

// Calls run(part) for parts of the rows of weights that take the same inputs, on the pool's threads: one loop for all of them. Each has all of its rows.
void for_parts(std::span<const RunArgs> weights, host::ThreadPool& pool, const std::function<void(const RunArgs&)>& run);

}  // namespace qb::kernel
