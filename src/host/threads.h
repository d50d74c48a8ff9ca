// A pool of threads for parallel loops of known shape. No allocation and no lock on the fast path: workers spin briefly, then sleep.
//
// Each thread begins with its own share, the same one for equal loops; who is done takes parts from the others. So on a busy machine a loop ends when its parts
// are done, whichever threads the system lets run. Which thread does what must not matter for the result. Rejected: shares that stay with their thread (decode
// of a 1B model beside two busy processes: a step waited for the slower thread at each of its 113 linears).
//
// Between loops one thread works and the others wait. What they will read next is known then, and memory has nothing to do: so they bring it nearer meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace qb::host {

class ThreadPool {
 public:
  // Fewer numbers than this are added up or rounded in the time that another thread takes to wake up.
  static constexpr int64_t worthwhile = 1 << 15;

  explicit ThreadPool(int threads);
  ~ThreadPool();
  int size() const;
  // f(i) once for each i in [0, size()), on as many threads as come; returns when all are done. Calls from one thread only. `f` must not throw.
  void run(const std::function<void(int)>& f);
  // f for contiguous ranges of multiples of `grain` that make up [0, count), a few for each thread; none is empty.
  void ranges(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& f);
  // What a loop soon reads, the same part of it in each part of its range: from now on threads that wait prefetch the beginning of their share. Only a hint,
  // and the last one holds. From the thread that calls the others.
  void expect(std::span<const std::byte> next);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qb::host
