// Long-lived aligned memory for weights and caches: anonymous mappings, huge pages advised, freed together.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"

namespace qb::host {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();
  // Zeroed, aligned to 64 bytes. Errors: out_of_memory. Not thread-safe.
  Result<std::span<std::byte>> take(size_t bytes);
  // Gives all of it back to the system: what was taken is gone.
  void clear();
  size_t bytes() const { return total_; }

 private:
  struct Mapping {
    void* base;
    size_t size;
  };
  std::vector<Mapping> mappings_;
  std::byte* at_ = nullptr;
  size_t left_ = 0, total_ = 0;
};

}  // namespace qb::host
