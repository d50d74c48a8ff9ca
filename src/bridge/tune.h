// Which kernels are fastest on this machine: for each problem of a grid all that run it take turns, with weights from memory. What comes of it is a profile for
// the oracle, and how much slower than the fastest the ones are that it would choose without.
#pragma once

#include <functional>
#include <vector>

#include "bridge/bench.h"
#include "oracle/oracle.h"

namespace qb::bench {

struct Race {
  kernel::Problem problem;
  struct Runner {
    const kernel::Kernel* kernel = nullptr;
    Spread ns;  // of one call with all threads
  };
  std::vector<Runner> runners;  // by what the model says of them, the cheapest first
  // How much longer the one that the model chooses takes than the fastest: 0.1 for a tenth.
  double regret() const;
};

// Every scheme that `bench` measures, 1 to 512 tokens, three sizes.
std::vector<kernel::Problem> tuning_grid();

struct TuneOptions {
  std::vector<kernel::Problem> problems = tuning_grid();
  int repeats = 7;
  std::function<bool()> stop;                             // may be empty
  std::function<void(size_t done, size_t all)> progress;  // may be empty
};

struct Tuning {
  oracle::Timings timings;
  std::vector<Race> races;
};

// Kernels that the model takes for eight times slower than the cheapest are left out, and so
// are the reference kernels; one that takes four times as long as the fastest does not run again. Errors: out_of_memory, cancelled.
Result<Tuning> tune(const host::Cpu& cpu, const WeightMemory& memory, host::ThreadPool& pool, const TuneOptions& options);

}  // namespace qb::bench
