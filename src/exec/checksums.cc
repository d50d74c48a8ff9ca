#include "exec/checksums.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

namespace qb {
namespace {

struct FreeState {
  void operator()(XXH3_state_t* p) const { XXH3_freeState(p); }
};

}  // namespace

struct Checksums::State {
  uint64_t hashed = 0, digest = 0;
  std::unique_ptr<XXH3_state_t, FreeState> stream;  // only while a tensor of several pieces is under way
};

Checksums::Checksums(std::span<const ScheduledTensor> tensors) : tensors_(tensors), states_(tensors.size()) {}
Checksums::~Checksums() = default;

bool Checksums::add(size_t tensor, uint64_t offset, std::span<const std::byte> piece) {
  State& s = states_[tensor];
  const uint64_t whole = tensors_[tensor].bytes;
  if (piece.size() == whole) {
    s.digest = XXH3_64bits(piece.data(), piece.size());
    return true;
  }
  if (piece.empty()) return true;
  {
    std::unique_lock lock(mutex_);
    ++waiting_;
    turn_.wait(lock, [&] { return abandoned_ || s.hashed == offset; });
    --waiting_;
    if (abandoned_) return false;
  }
  // Nobody else touches this state until `hashed` moves on.
  if (s.stream == nullptr) {
    s.stream.reset(XXH3_createState());
    if (s.stream == nullptr) std::abort();  // 576 bytes
    XXH3_64bits_reset(s.stream.get());
  }
  XXH3_64bits_update(s.stream.get(), piece.data(), piece.size());
  if (offset + piece.size() == whole) {
    s.digest = XXH3_64bits_digest(s.stream.get());
    s.stream.reset();
  }
  const std::lock_guard lock(mutex_);
  s.hashed = offset + piece.size();
  if (waiting_ > 0) turn_.notify_all();
  return true;
}

void Checksums::abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  turn_.notify_all();
}

std::string Checksums::hex(size_t tensor) const {
  return fmt::format("{:016x}", states_[tensor].digest);
}

}  // namespace qb
