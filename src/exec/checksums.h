// XXH3-64 of every output tensor, from pieces that several threads finish at different times.
//
// The pieces of a tensor enter its hash in order: a thread whose piece comes too early waits for the one before. Tasks are handed out in file order, so the
// thread with the earliest piece never waits.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "exec/schedule.h"
#include "exec/xxh3.h"

namespace qb {

class Checksums {
 public:
  Checksums(std::span<const ScheduledTensor> tensors, Isa isa);

  // `piece` lies at `offset` of the tensor. False: abandoned while waiting.
  bool add(size_t tensor, uint64_t offset, std::span<const std::byte> piece);
  // Wakes all who wait, for good.
  void abandon();
  // 16 hex digits; all of the tensor was added.
  std::string hex(size_t tensor) const { return xxh3_hex(states_[tensor].digest); }

 private:
  struct State {
    uint64_t hashed = 0, digest = 0;
    std::unique_ptr<Xxh3> stream;  // only while a tensor of several pieces is under way
  };
  std::span<const ScheduledTensor> tensors_;
  Isa isa_;
  std::vector<State> states_;
  std::mutex mutex_;
  std::condition_variable turn_;
  int waiting_ = 0;
  bool abandoned_ = false;
};

}  // namespace qb
