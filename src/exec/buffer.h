// Memory that is reused from one block to the next: grows to the largest request, is never zeroed, and says no instead of throwing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "base/result.h"

namespace qb {

class Buffer {
 public:
  // At least `bytes` bytes, aligned to a cache line. What it held is lost when it has to grow.
  Result<std::byte*> at_least(uint64_t bytes);

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  uint64_t size_ = 0;
};

inline constexpr uint64_t buffer_alignment = 64;
inline uint64_t aligned(uint64_t bytes) {
  return (bytes + (buffer_alignment - 1)) / buffer_alignment * buffer_alignment;
}

}  // namespace qb
