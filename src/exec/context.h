// What running a program needs besides the program: limits, the instruction set, cancellation, and the amaxes that were already taken.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/source.h"
#include "num/isa.h"
#include "prog/program.h"

namespace qb {

struct Progress {
  uint64_t done = 0, total = 0;  // input and output bytes together
};

struct Limits {
  uint64_t memory_budget = 512ull << 20;  // bytes of buffers, all threads together
  int threads = 1;
};

class Context {
 public:
  Limits limits;
  Isa isa = Isa::generic;
  std::function<void(const Progress&)> progress;  // called from one thread at a time; may be empty
  const std::atomic<bool>* cancelled = nullptr;   // may be null
  bool stop() const { return cancelled != nullptr && cancelled->load(std::memory_order_relaxed); }

  // The value of a reduction, computed at most once per Context however many programs and threads ask for it.
  Result<float> reduce(const prog::Reduction&, Source&);

 private:
  struct Entry;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Entry>> reductions_;
};

}  // namespace qb
