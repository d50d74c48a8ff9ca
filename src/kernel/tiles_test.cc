// The tiles in memory against what the manual says, and that kernels give theirs back.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernel/emulated.h"
#include "kernel/emulated_tiles.h"

namespace qb::kernel {
namespace {

using T = EmulatedTiles;

// Sums [rows, words] in tile 0, factors [rows, lines] in 4 and [lines, words] in 6.
host::TileShapes shapes(int rows, int lines, int words) {
  host::TileShapes s;
  s.rows[0] = s.rows[4] = static_cast<uint8_t>(rows);
  s.rows[6] = static_cast<uint8_t>(lines);
  s.row_bytes[0] = s.row_bytes[6] = static_cast<uint16_t>(4 * words);
  s.row_bytes[4] = static_cast<uint16_t>(4 * lines);
  return s;
}

TEST(Tiles, BytesAreAddedUpForEveryShape) {
  std::mt19937 random(1);
  for (const int rows : {1, 5, 16}) {
    for (const int lines : {1, 3, 16}) {
      for (const int words : {1, 9, 16}) {
        std::vector<int8_t> x(static_cast<size_t>(rows * 4 * lines));
        std::vector<uint8_t> w(static_cast<size_t>(lines * 4 * words));
        std::vector<int32_t> c(static_cast<size_t>(rows * words)), expected;
        for (int8_t& v : x) v = static_cast<int8_t>(random());
        for (uint8_t& v : w) v = static_cast<uint8_t>(random());
        for (int32_t& v : c) v = static_cast<int32_t>(random() % 1000);
        expected = c;
        for (int m = 0; m < rows; ++m) {
          for (int n = 0; n < words; ++n) {
            for (int k = 0; k < 4 * lines; ++k)
              expected[static_cast<size_t>(m * words + n)] +=
                  x[static_cast<size_t>(m * 4 * lines + k)] * w[static_cast<size_t>((k / 4 * words + n) * 4 + k % 4)];
          }
        }
        T::shape(shapes(rows, lines, words));
        T::load<0>(c.data(), 4 * words);
        T::load<4>(x.data(), 4 * lines);
        T::load<6>(w.data(), 4 * words);
        T::dot_int8<0, 4, 6>();
        T::store<0>(c.data(), 4 * words);
        EXPECT_EQ(c, expected) << rows << ' ' << lines << ' ' << words;
        T::zero<0>();
        T::store<0>(c.data(), 4 * words);
        EXPECT_EQ(c, std::vector<int32_t>(c.size()));
        T::release();
      }
    }
  }
}

TEST(TilesDeathTest, WhatTheProcessorRefusesEnds) {
  const auto with = [](auto change) {
    host::TileShapes s = shapes(16, 16, 16);
    change(s);
    T::shape(s);
  };
  EXPECT_DEATH(with([](host::TileShapes& s) { s.palette = 2; }), "");
  EXPECT_DEATH(with([](host::TileShapes& s) { s.rows[0] = 17; }), "");
  EXPECT_DEATH(with([](host::TileShapes& s) { s.row_bytes[0] = 65; }), "");
  EXPECT_DEATH(with([](host::TileShapes& s) { s.rows[0] = 0; }), "");
  EXPECT_DEATH(with([](host::TileShapes& s) { s.rows[8] = 1, s.row_bytes[8] = 4; }), "");
  EXPECT_DEATH(with([](host::TileShapes& s) { s.reserved[3] = 1; }), "");
  EXPECT_DEATH((with([](host::TileShapes& s) { s.rows[6] = 15; }), T::dot_int8<0, 4, 6>()), "");
  EXPECT_DEATH((with([](host::TileShapes& s) { s.rows[4] = 15; }), T::dot_int8<0, 4, 6>()), "");
  EXPECT_DEATH((with([](host::TileShapes& s) { s.row_bytes[6] = 60; }), T::dot_int8<0, 4, 6>()), "");
  EXPECT_DEATH((with([](host::TileShapes&) {}), T::zero<1>()), "");
  EXPECT_DEATH((T::release(), T::zero<0>()), "");
}

TEST(Tiles, KernelsGiveThemBack) {
  for (const Kernel* k : emulated_amx()) {
    if (!host::covers(host::this_cpu().features, k->needs)) continue;
    Problem p{3, 16, 64, {}};
    std::string_view text;
    for (const std::string_view some :
         {"int4_g32:int8_token", "int8_channel:int8_token", "mxfp4:int8_token", "bf16", "fp8_channel", "mxfp4", "int4_g32", "int8_g32"}) {
      p.scheme = *ir::parse_scheme(some);
      if (k->accepts(p).ok) text = some;
    }
    ASSERT_FALSE(text.empty()) << k->name;
    p.scheme = *ir::parse_scheme(text);
    const std::vector<std::byte> codes(16 * 64 * 4), scales(16 * 4 * 4);
    std::vector<std::byte> workspace(k->workspace_bytes(p));
    const std::vector<float> x(3 * 64, 1.0F);
    std::vector<float> y(3 * 16);
    const Weight w{.codes = codes.data(), .scales = scales.data()};
    const RunArgs a{&p, &w, x.data(), y.data(), 0, 16, workspace.data()};
    k->prepare(a, 0, 3);
    k->run(a);
    EXPECT_TRUE(T::released()) << k->name << ' ' << text;
  }
}

}  // namespace
}  // namespace qb::kernel
