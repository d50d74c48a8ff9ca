#include "host/arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace qb::host {
namespace {

TEST(Arena, GivesZeroedAlignedSpansThatDoNotOverlap) {
  Arena arena;
  std::vector<std::span<std::byte>> taken;
  size_t total = 0;
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{5} << 20, size_t{31} << 20, size_t{40} << 20, size_t{100}}) {
    auto r = arena.take(bytes);
    ASSERT_TRUE(r.ok()) << r.error().what;
    ASSERT_EQ(r->size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(r->data()) % 64, 0u);
    for (std::byte b : *r) ASSERT_EQ(b, std::byte{0});
    for (std::byte& b : *r) b = std::byte{0xFF};
    taken.push_back(*r);
    total += bytes;
  }
  EXPECT_GE(arena.bytes(), total);
  EXPECT_LT(arena.bytes(), total + 64 * taken.size());
}

TEST(Arena, SaysWhenThereIsNoMemory) {
  Arena arena;
  for (size_t bytes : {SIZE_MAX, SIZE_MAX / 2, size_t{1} << 60}) {
    auto r = arena.take(bytes);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code, Errc::out_of_memory);
  }
  EXPECT_TRUE(arena.take(100).ok());
}

}  // namespace
}  // namespace qb::host
