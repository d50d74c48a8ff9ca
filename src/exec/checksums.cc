#include "exec/checksums.h"

namespace qb {

Checksums::Checksums(std::span<const ScheduledTensor> tensors, Isa isa) : tensors_(tensors), isa_(isa), states_(tensors.size()) {}

bool Checksums::add(size_t tensor, uint64_t offset, std::span<const std::byte> piece) {
  State& s = states_[tensor];
  const uint64_t whole = tensors_[tensor].bytes;
  if (piece.size() != whole) {
    if (piece.empty()) return true;
    std::unique_lock lock(mutex_);
    ++waiting_;
    turn_.wait(lock, [&] { return abandoned_ || s.hashed == offset; });
    --waiting_;
    if (abandoned_) return false;
  }
  // Nobody else touches this state until `hashed` moves on.
  if (s.stream == nullptr) s.stream = std::make_unique<Xxh3>(isa_);
  s.stream->add(piece);
  if (offset + piece.size() == whole) {
    s.digest = s.stream->digest();
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

}  // namespace qb
