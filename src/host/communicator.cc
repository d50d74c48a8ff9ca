#include "host/communicator.h"

#include <algorithm>
#include <cstring>

namespace qb::host {
namespace {

constexpr size_t most_at_once = 1 << 20;  // bytes of one rank

}  // namespace

template <class T>
void Communicator::add_up(std::span<T> numbers) {
  if (size() == 1) return;
  const auto ranks = static_cast<size_t>(size());
  for (size_t at = 0; at < numbers.size(); at += most_at_once / sizeof(T)) {
    const std::span<T> part = numbers.subspan(at, std::min(most_at_once / sizeof(T), numbers.size() - at));
    if (space_.size() < ranks * part.size_bytes()) space_.resize(ranks * part.size_bytes());
    gather(std::as_bytes(part), std::span(space_).first(ranks * part.size_bytes()));
    const T* const all = reinterpret_cast<const T*>(space_.data());
    for (size_t i = 0; i < part.size(); ++i) {
      double total = 0;
      for (size_t r = 0; r < ranks; ++r) total += static_cast<double>(all[r * part.size() + i]);
      part[i] = static_cast<T>(total);
    }
  }
}

void Communicator::sum(std::span<double> numbers) {
  add_up(numbers);
}
void Communicator::sum(std::span<float> numbers) {
  add_up(numbers);
}
void Communicator::sum(std::span<uint64_t> numbers) {
  add_up(numbers);
}

std::vector<std::string> Communicator::gather_text(std::string_view mine) {
  const auto ranks = static_cast<size_t>(size());
  const uint64_t length = mine.size();
  std::vector<uint64_t> lengths(ranks);
  gather(std::as_bytes(std::span(&length, 1)), std::as_writable_bytes(std::span(lengths)));
  std::vector<std::string> texts(ranks);
  const uint64_t longest = *std::max_element(lengths.begin(), lengths.end());
  std::vector<std::byte> part(std::min<uint64_t>(longest, most_at_once)), all(ranks * part.size());
  for (uint64_t at = 0; at < longest; at += part.size()) {
    if (at < mine.size()) std::memcpy(part.data(), mine.data() + at, std::min<size_t>(part.size(), mine.size() - at));
    gather(part, all);
    for (size_t r = 0; r < ranks; ++r)
      if (at < lengths[r]) texts[r].append(reinterpret_cast<const char*>(all.data() + r * part.size()), std::min<uint64_t>(part.size(), lengths[r] - at));
  }
  return texts;
}

void Communicator::broadcast_text(std::string& text) {
  uint64_t length = text.size();
  broadcast(std::as_writable_bytes(std::span(&length, 1)));
  text.resize(length);
  for (size_t at = 0; at < text.size(); at += most_at_once)
    broadcast(std::as_writable_bytes(std::span(text).subspan(at, std::min(most_at_once, text.size() - at))));
}

}  // namespace qb::host
