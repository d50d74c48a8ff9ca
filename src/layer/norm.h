// RMSNorm as transformers computes it: y = w * (x / sqrt(mean(x^2) + eps)), all in float32. Source of truth: modeling_llama.py's LlamaRMSNorm.
#pragma once

#include <cstdint>

#include "host/threads.h"
#include "num/isa.h"

namespace qb::layer {

// x, y: [rows, n]; weight: [n]. y may be x. The sum of a row has a fixed order, whatever the instruction set and the number of threads.
void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t n, float* y, Isa isa, host::ThreadPool& pool);

}  // namespace qb::layer
