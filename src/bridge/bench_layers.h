// Weights to measure a kernel with: layers that lie one behind the other in memory, more of them than caches hold.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "host/arena.h"
#include "host/threads.h"
#include "kernel/kernel.h"

namespace qb::bench {

// Seconds that a call takes: of its processor where the pool has one thread, so that what other processes take is not in it; of the clock otherwise.
double seconds(const host::ThreadPool& pool, const std::function<void()>& f);

// Weights of many layers, more than any cache holds: huge-page memory whose every byte is a valid code.
inline constexpr size_t beyond_caches = size_t{384} << 20;
class WeightMemory {
 public:
  static Result<WeightMemory> make(size_t bytes);
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::unique_ptr<host::Arena> arena_;
  std::span<std::byte> bytes_;
};

// Layers of one problem as a kernel reads them, and what a call needs besides. The memory must outlive it. Several may share it: what they compute then means
// nothing, and takes as long.
class BenchLayers {
 public:
  // Errors: out_of_memory, where not even one layer fits.
  static Result<BenchLayers> make(const kernel::Kernel& kernel, const kernel::Problem& problem, const WeightMemory& memory);
  // Seconds of one call with layer i, of as many as there are, in turns.
  double run(size_t i, host::ThreadPool& pool);
  int64_t bytes() const { return read_; }  // of a layer
  // The bytes of the layer that is farthest from layer i.
  std::span<std::byte> far_from(size_t i) const;

 private:
  const kernel::Kernel* kernel_ = nullptr;
  kernel::Problem problem_;
  std::span<std::byte> memory_;
  int64_t read_ = 0, each_ = 0;  // bytes of a layer, and of its place
  std::vector<kernel::Weight> weights_;
  std::unique_ptr<host::Arena> arena_;
  std::span<std::byte> workspace_;
  std::vector<float> x_, y_;
};

}  // namespace qb::bench
