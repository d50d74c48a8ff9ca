// Memory that is reused from one block to the next: grows to the largest request and says no instead of throwing.
//
// Large buffers are mapped one by one and go back to the system when they are let go. The C library would keep them: glibc serves what is as large as something
// that was freed before from the threads' arenas, where small allocations hold on to it, and a run with four threads had over 100 MiB that nobody used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"

namespace qb {

struct FreeBuffer {
  uint64_t mapped = 0;  // bytes, of memory that the system gave by itself
  void operator()(std::byte* p) const;
};

class Buffer {
 public:
  // At least `bytes` bytes, aligned to a cache line. What it held is lost when it has to grow.
  Result<std::byte*> at_least(uint64_t bytes);

 private:
  std::unique_ptr<std::byte, FreeBuffer> data_;
  uint64_t size_ = 0;
};

inline constexpr uint64_t buffer_alignment = 64;
inline uint64_t aligned(uint64_t bytes) {
  return (bytes + (buffer_alignment - 1)) / buffer_alignment * buffer_alignment;
}

}  // namespace qb
