// The tiles in memory against what the manual says, and that kernels give theirs back.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
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

// Of a matrix in rows.
size_t at(int row, int width, int column) {
  return static_cast<size_t>(row) * static_cast<size_t>(width) + static_cast<size_t>(column);
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
            for (int k = 0; k < 4 * lines; ++k) expected[at(m, words, n)] += x[at(m, 4 * lines, k)] * w[at(k / 4 * words + n, 4, k % 4)];
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

// One sum of `k` pairs: even columns, odd columns, both, and what was there.
float bf16_sum(const std::vector<float>& x, const std::vector<float>& w, float c) {
  const auto lines = static_cast<int>(x.size() / 2);
  const auto halves = [](const std::vector<float>& v) {
    std::vector<uint16_t> out;
    for (const float f : v) out.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(f) >> 16));
    return out;
  };
  const std::vector<uint16_t> a = halves(x), b = halves(w);
  T::shape(shapes(1, lines, 1));
  T::load<0>(&c, 4);
  T::load<4>(a.data(), 4 * lines);
  T::load<6>(b.data(), 4);
  T::dot_bf16<0, 4, 6>();
  T::store<0>(&c, 4);
  T::release();
  return c;
}

TEST(Tiles, PairsOfBfloat16AreAddedUpInTheManualsOrder) {
  EXPECT_EQ(bf16_sum({2, 3}, {5, 7}, 0.5F), 31.5F);
  EXPECT_EQ(bf16_sum({1, 1, 1, 1}, {1, 2, 3, 4}, 0), 10);
  // 2^24 and 1 fall together in one column's sum, where the 1 is lost, and not from different ones before 2^24 is taken away.
  EXPECT_EQ(bf16_sum({1, 0, 1, 0, 1, 0}, {0x1p24F, 0, 1, 0, -0x1p24F, 0}, 0), 0);
  EXPECT_EQ(bf16_sum({1, 0, 0, 1, 1, 0}, {0x1p24F, 0, 0, 1, -0x1p24F, 0}, 0), 1);
  // What was there comes last: beside 2^24 both halves of the 2 are there.
  EXPECT_EQ(bf16_sum({1, 1}, {1, 1}, 0x1p24F), 0x1p24F + 2);
  // Subnormal factors, products and sums are zero; so is what was there.
  EXPECT_EQ(bf16_sum({0x1p-127F, 0}, {0x1p100F, 0}, 0), 0);
  EXPECT_EQ(bf16_sum({0x1p-100F, 0}, {0x1p-27F, 0}, 0), 0);
  EXPECT_EQ(bf16_sum({0x1.8p-126F, 0x1p-126F}, {1, -1}, 0), 0);
  EXPECT_EQ(bf16_sum({0, 0}, {0, 0}, 0x1p-130F), 0);
  EXPECT_EQ(bf16_sum({0x1p-126F, 0}, {1, 0}, 0), 0x1p-126F);
  EXPECT_TRUE(std::isnan(bf16_sum({1, std::numeric_limits<float>::quiet_NaN()}, {1, 1}, 0)));
  EXPECT_EQ(bf16_sum({1, 0}, {std::numeric_limits<float>::infinity(), 1}, 0), std::numeric_limits<float>::infinity());
}

#if defined(__x86_64__)
// 16 rows of 16 words in each tile: sums, factors of tokens and of weights. What is left in the sums' after a product of the first so many.
template <class Tiles, bool bytes>
std::vector<uint32_t> product(int rows, int lines, int words, std::vector<uint32_t> c, const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  Tiles::shape(shapes(rows, lines, words));
  Tiles::template load<0>(c.data(), 64);
  Tiles::template load<4>(a.data(), 64);
  Tiles::template load<6>(b.data(), 64);
  if constexpr (bytes) {
    Tiles::template dot_int8<0, 4, 6>();
  } else {
    Tiles::template dot_bf16<0, 4, 6>();
  }
  Tiles::template store<0>(c.data(), 64);
  Tiles::release();
  return c;
}

TEST(Tiles, AreThoseOfTheProcessor) {
  if (!host::covers(host::this_cpu().features, host::Feature::amx_int8 | host::Feature::amx_bf16)) GTEST_SKIP() << "no tiles here";
  std::mt19937 random(2);
  std::vector<uint32_t> c(256), a(256), b(256);
  const auto is_nan = [](uint32_t bits) { return (bits & 0x7FFFFFFFU) > 0x7F800000U; };
  for (int round = 0; round < 300; ++round) {
    const auto any = [&random](int most) { return 1 + static_cast<int>(random() % static_cast<uint32_t>(most)); };
    const int rows = any(16), lines = any(16), words = any(16);
    for (auto* v : {&c, &a, &b})
      for (uint32_t& word : *v) word = static_cast<uint32_t>(random());
    EXPECT_EQ((product<host::AmxTiles, true>(rows, lines, words, c, a, b)), (product<T, true>(rows, lines, words, c, a, b))) << round;
    // Exponents of some width: a narrow one rounds often, a wide one meets what is subnormal, infinite or not a number.
    const uint32_t width = round % 3 == 0 ? 4 : round % 3 == 1 ? 60 : 255;
    const auto bf16 = [&] { return static_cast<uint32_t>((random() & 0x807FU) | (127 - width / 2 + random() % (width + 1)) << 7); };
    for (auto* v : {&a, &b})
      for (uint32_t& word : *v) word = bf16() | bf16() << 16;
    for (uint32_t& word : c) word = bf16() << 16 | static_cast<uint32_t>(random() & 0xFFFFU);
    const auto ours = product<T, false>(rows, lines, words, c, a, b), its = product<host::AmxTiles, false>(rows, lines, words, c, a, b);
    for (size_t i = 0; i < ours.size(); ++i) {
      if (is_nan(ours[i]) && is_nan(its[i])) continue;
      EXPECT_EQ(ours[i], its[i]) << round << ": " << rows << " x " << lines << " x " << words << " at " << i;
    }
  }
}
#endif

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
