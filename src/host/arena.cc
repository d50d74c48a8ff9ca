#include "host/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

namespace qb::host {
namespace {

constexpr size_t huge_page = size_t{2} << 20;
// Addresses are taken in large pieces, memory only where it is touched: pieces of the size of a request would each end in a huge page that is half used.
constexpr size_t reserve = size_t{1} << 30;
constexpr size_t alignment = 64;

size_t round_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

void* map(size_t bytes) {
  return ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

}  // namespace

Arena::~Arena() {
  clear();
}

void Arena::clear() {
  for (const Mapping& m : mappings_) ::munmap(m.base, m.size);
  mappings_.clear();
  at_ = nullptr;
  left_ = total_ = 0;
}

Result<std::span<std::byte>> Arena::take(size_t bytes) {
  const Error failed{Errc::out_of_memory,
                     fmt::format("the system has no {} bytes of memory for weights and caches; use a smaller model or free memory", bytes)};
  if (bytes > SIZE_MAX / 2) return failed;
  const size_t need = round_up(bytes, alignment);
  if (need > left_) {
    // One huge page more than needed: the usable part starts at a multiple of a huge page, so that all of it can lie in huge pages.
    size_t usable = round_up(std::max(need, reserve), huge_page);
    void* base = map(usable + huge_page);
    // Where addresses count as memory (a limit of the process, strict overcommit), the request alone must do.
    if (base == MAP_FAILED) base = map((usable = round_up(need, huge_page)) + huge_page);
    if (base == MAP_FAILED) return failed;
    mappings_.push_back({base, usable + huge_page});
    const auto address = reinterpret_cast<uintptr_t>(base);
    auto* start = static_cast<std::byte*>(base) + (round_up(address, huge_page) - address);
    ::madvise(start, usable, MADV_HUGEPAGE);  // advice: where it is refused, small pages serve
    // What is left of the older piece is given up unless it is the larger rest.
    if (usable - need < left_) {
      total_ += need;
      return std::span<std::byte>(start, bytes);
    }
    at_ = start;
    left_ = usable;
  }
  const std::span<std::byte> taken(at_, bytes);
  at_ += need;
  left_ -= need;
  total_ += need;
  return taken;
}

}  // namespace qb::host
