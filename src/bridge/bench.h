// Measurements as fractions of what the machine does at most, taken in turns with a probe of it in the same run: medians with least and most.
//
// Goals: numbers that mean the same on a busy machine, from the command bench and from bench/. Non-goals: printing, choosing what to measure.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bridge/bench_layers.h"
#include "bridge/runtime.h"
#include "host/cpu.h"
#include "kernel/kernel.h"

namespace qb::bench {

struct Spread {
  double median = 0, least = 0, most = 0;
  int count = 0;
};
Spread spread_of(std::vector<double> values);

struct Peaks {
  Spread read_gbs;         // GB/s from memory
  Spread f32, bf16, int8;  // G multiply-adds a second
  Spread clock_ghz;        // of each thread
};

// The machine's limits with the pool's threads, from memory that no cache holds.
Peaks measure_peaks(const host::Cpu& cpu, const WeightMemory& memory, host::ThreadPool& pool, int repeats);

// Schemes to measure a kernel with, by the layout that it reads.
std::vector<std::string_view> schemes_of(const kernel::Kernel& kernel);

struct KernelRates {
  Spread gbs, read_gbs, of_read;   // bytes of the weight; the plain read in between; their ratio
  Spread products, peak, of_peak;  // G multiply-adds a second; of the dot product that it uses, bf16 or int8, in registers; their ratio
};

// A kernel with weights from memory, one layer after the other; after each piece the bytes of other layers are read, or as long is multiplied in registers.
Result<KernelRates> measure_kernel(const kernel::Kernel& kernel, const kernel::Problem& problem, const host::Cpu& cpu, const WeightMemory& memory,
                                   host::ThreadPool& pool, int repeats);

struct Workload {
  int64_t batch = 1, prompt = 512, tokens = 64;
  std::function<bool()> stop;  // may be empty
};
struct ModelRates {
  Spread prefill;                                       // tokens/s
  Spread prefill_products, peak, prefill_of_peak;       // G multiply-adds a second of linears, and of the same many in registers, each by the product that its
                                                        // kernel uses; their ratio
  Spread decode, decode_gbs, read_gbs, decode_of_read;  // tokens/s; GB/s of weights and of plain reads of the same weights in turns; their ratio
  uint64_t weight_bytes_per_step = 0, kv_bytes = 0;
};
// Cache blocks must be there for `batch` sequences of prompt + tokens tokens. Errors: more tokens than the model's positions.
Result<ModelRates> measure_model(Runtime& runtime, const host::Cpu& cpu, const Workload& workload);

}  // namespace qb::bench
