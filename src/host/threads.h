// A pool of threads for parallel loops of known shape: run(f) calls f(i) for i in [0, size) on size threads, the caller among them, and returns when all are
// done. No allocation and no lock on the fast path: workers spin briefly, then sleep.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace qb::host {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  int size() const;
  // Calls from one thread only. `f` must not throw.
  void run(const std::function<void(int)>& f);
  // [0, count) split into size() contiguous ranges of multiples of `grain`; empty ranges are not called.
  void ranges(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& f);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qb::host
