#include "host/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

namespace qb::host {
namespace {

constexpr size_t huge_page = size_t{2} << 20;
constexpr size_t chunk = size_t{32} << 20;  // of small requests
constexpr size_t alignment = 64;

size_t round_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

Arena::~Arena() {
  for (const Mapping& m : mappings_) ::munmap(m.base, m.size);
}

Result<std::span<std::byte>> Arena::take(size_t bytes) {
  const Error failed{Errc::out_of_memory,
                     fmt::format("the system has no {} bytes of memory for weights and caches; use a smaller model or free memory", bytes)};
  if (bytes > SIZE_MAX / 2) return failed;
  const size_t need = round_up(bytes, alignment);
  if (need > left_) {
    const size_t usable = round_up(std::max(need, chunk), huge_page);
    // One huge page more than needed: the usable part starts at a multiple of a huge page, so that all of it can lie in huge pages.
    const size_t size = usable + huge_page;
    void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return failed;
    mappings_.push_back({base, size});
    const auto address = reinterpret_cast<uintptr_t>(base);
    auto* start = static_cast<std::byte*>(base) + (round_up(address, huge_page) - address);
    ::madvise(start, usable, MADV_HUGEPAGE);  // advice: where it is refused, small pages serve
    // What is left of the older chunk is given up unless it is the larger rest.
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
