#include "exec/channels.h"

#include <gtest/gtest.h>

#include <random>

#include "host/host.h"

namespace qb {
namespace {

using Codes = std::vector<std::vector<int>>;  // by output and input, as numbers of the stored format without offsets

// The same at every instruction set.
ChannelCounts count(const ChannelGrid& g, const std::vector<uint8_t>& bytes, size_t piece) {
  std::optional<ChannelCounts> first;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
    if (isa > host::detect_isa()) break;
    Channels c(g, isa);
    const auto all = std::as_bytes(std::span(bytes));
    for (size_t at = 0; at < all.size(); at += piece) c.add(all.subspan(at, std::min(piece, all.size() - at)));
    if (!first) first = c.counts();
    EXPECT_EQ(*first, c.counts()) << "isa " << static_cast<int>(isa);
  }
  return *first;
}

// n outputs of k codes without ends of the range; output 3 is dead, of output 5 more than half are at an end.
Codes damaged(int64_t n, int64_t k, int least, int largest, int zero) {
  std::mt19937 random(7);
  Codes codes(static_cast<size_t>(n), std::vector<int>(static_cast<size_t>(k)));
  for (auto& row : codes)
    for (int& c : row) c = least + 2 + static_cast<int>(random() % static_cast<unsigned>(largest - least - 2));
  for (int& c : codes[3]) c = zero;
  for (size_t j = 0; j < codes[5].size(); ++j)
    if (j % 3 != 0) codes[5][j] = j % 2 == 0 ? largest : least;
  return codes;
}

void expect_found(const ChannelGrid& g, const std::vector<uint8_t>& bytes, int64_t n) {
  for (const size_t piece : {bytes.size(), size_t{7}, size_t{64}}) {
    const ChannelCounts c = count(g, bytes, piece);
    EXPECT_EQ(c.channels, n);
    EXPECT_EQ(c.dead, 1);
    EXPECT_EQ(c.first_dead, 3);
    EXPECT_EQ(c.saturated, 1);
    EXPECT_EQ(c.first_saturated, 5);
  }
}

ir::Module module_of(Elem code, std::string_view scheme) {
  ir::Module m{.path = "m", .kind = arch::Kind::linear};
  m.scheme = *ir::parse_scheme(scheme);
  m.scheme->weight.code = code;
  return m;
}
ir::Stored stored(Elem elem, const ir::View& view, uint64_t bytes) {
  return {.role = ir::Role::code, .tensor = "t", .bytes = bytes, .elem = elem, .view = view};
}

TEST(Channels, FloatsByteByByte) {
  const int64_t n = 40, k = 320;  // more inputs than one vector counts
  std::vector<uint8_t> bytes(static_cast<size_t>(n * k), 0x30);
  for (int64_t j = 0; j < k; ++j) {
    bytes[static_cast<size_t>(3 * k + j)] = j % 2 == 0 ? 0x00 : 0x80;  // both zeros
    bytes[static_cast<size_t>(5 * k + j)] = j % 3 != 0 ? 0xFE : 0x01;
  }
  const auto g = channel_grid(stored(Elem::e4m3, ir::row_major(n, k, 8), bytes.size()), module_of(Elem::e4m3, "fp8_channel"));
  ASSERT_TRUE(g);
  expect_found(*g, bytes, n);
}

TEST(Channels, FourBitFloats) {
  const int64_t n = 8, k = 64;
  std::vector<uint8_t> bytes(static_cast<size_t>(n * k / 2), 0x12);
  for (int64_t j = 0; j < k / 2; ++j) {
    bytes[static_cast<size_t>(3 * k / 2 + j)] = 0x80;
    bytes[static_cast<size_t>(5 * k / 2 + j)] = j % 3 == 0 ? 0x11 : 0x7F;
  }
  const auto g = channel_grid(stored(Elem::e2m1, ir::row_major(n, k, 4), bytes.size()), module_of(Elem::e2m1, "nvfp4"));
  ASSERT_TRUE(g);
  expect_found(*g, bytes, n);
}

// Words as GPTQ has them: inputs in the fields of a word, outputs beside each other, more rows than a byte counts.
TEST(Channels, StreamsDownTheColumns) {
  for (const int width : {4, 8}) {
    const int half = 1 << (width - 1);
    const int64_t n = 32, each = 32 / width, k = 300 * each;
    const Codes codes = damaged(n, k, -half, half - 1, -1);
    std::vector<uint8_t> bytes(static_cast<size_t>(k * n * width / 8));
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j) {
        const int64_t bit = (j / each * n + i) * 32 + j % each * width;
        bytes[static_cast<size_t>(bit / 8)] |= static_cast<uint8_t>((codes[static_cast<size_t>(i)][static_cast<size_t>(j)] + half) << bit % 8);
      }
    ir::View v{.dims = {n, k}, .stride = {32, width}, .offset_binary = true};
    v.words[1] = n * 32;
    const Elem elem = width == 4 ? Elem::int4 : Elem::i8;
    const auto g = channel_grid(stored(elem, v, bytes.size()), module_of(elem, "int4_g128"));
    ASSERT_TRUE(g);
    expect_found(*g, bytes, n);
  }
}

// Words as AWQ has them: outputs in the fields of a word, in an order of their own.
TEST(Channels, OutputsInTheFieldsOfAWord) {
  const int64_t n = 32, k = 300;
  const Codes codes = damaged(n, k, -8, 7, 0);
  ir::View v{.dims = {n, k}, .stride = {32, n * 4}, .offset_binary = true};
  v.lanes[0] = {.count = 8, .bit = {0, 16, 4, 20, 8, 24, 12, 28}};
  std::vector<uint8_t> bytes(static_cast<size_t>(n * k / 2));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) {
      const int64_t bit = i / 8 * 32 + v.lanes[0].bit[static_cast<size_t>(i % 8)] + j * n * 4;
      bytes[static_cast<size_t>(bit / 8)] |= static_cast<uint8_t>((codes[static_cast<size_t>(i)][static_cast<size_t>(j)] + 8) << bit % 8);
    }
  const auto g = channel_grid(stored(Elem::int4, v, bytes.size()), module_of(Elem::int4, "int4_g128"));
  ASSERT_TRUE(g);
  expect_found(*g, bytes, n);
}

TEST(Channels, RowsInPairs) {
  const int64_t n = 8, k = 100;
  const Codes codes = damaged(n, k, -8, 7, 0);
  std::vector<uint8_t> bytes(static_cast<size_t>(n / 2 * k));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j)
      bytes[static_cast<size_t>(i / 2 * k + j)] |= static_cast<uint8_t>((codes[static_cast<size_t>(i)][static_cast<size_t>(j)] & 15) << 4 * (i % 2));
  const auto g = channel_grid(stored(Elem::int4, ir::nibbles(n, k, ir::Nibbles::row_pairs), bytes.size()), module_of(Elem::int4, "int4_g128"));
  ASSERT_TRUE(g);
  expect_found(*g, bytes, n);
}

// Stacked experts that are stored by their inputs: outputs are columns, and begin anew with every expert.
TEST(Channels, StacksByTheirInputs) {
  const int64_t experts = 2, inputs = 300, outputs = 40;
  std::vector<uint8_t> bytes(static_cast<size_t>(experts * inputs * outputs), 0x30);
  for (int64_t j = 0; j < inputs; ++j) {
    bytes[static_cast<size_t>(j * outputs + 3)] = 0;
    bytes[static_cast<size_t>((inputs + j) * outputs + 5)] = 0x7E;
  }
  ir::Module m = module_of(Elem::e4m3, "fp8_tensor");
  m.stack = {.experts = experts, .inputs_first = true};
  const auto g = channel_grid(stored(Elem::e4m3, ir::row_major(experts * inputs, outputs, 8), bytes.size()), m);
  ASSERT_TRUE(g);
  for (const size_t piece : {bytes.size(), size_t{33}}) {
    const ChannelCounts c = count(*g, bytes, piece);
    EXPECT_EQ(c.channels, experts * outputs);
    EXPECT_EQ(c.dead, 1);
    EXPECT_EQ(c.first_dead, 3);
    EXPECT_EQ(c.saturated, 1);
    EXPECT_EQ(c.first_saturated, outputs + 5);
  }
}

// Half of all codes of two bits may be the largest or the least: that says nothing.
TEST(Channels, TwoBitsMayBeAtTheEnds) {
  const int64_t n = 8, k = 300 * 16;
  std::vector<uint8_t> rows(static_cast<size_t>(n * k / 4), 0xFE), streams(rows.size(), 0xFE);
  std::fill_n(rows.begin() + 3 * k / 4, k / 4, uint8_t{0x55});
  for (size_t i = 0; i < streams.size(); ++i)
    if (i / 4 % n == 3) streams[i] = 0x55;
  const ir::Module m = module_of(Elem::int2, "int4_g128");
  const auto by_rows = channel_grid(stored(Elem::int2, *ir::packed_words(n, k, 2, 1, k / 16), rows.size()), m);
  ir::View v{.dims = {n, k}, .stride = {32, 2}, .offset_binary = true};
  v.words[1] = n * 32;
  const auto by_columns = channel_grid(stored(Elem::int2, v, streams.size()), m);
  ASSERT_TRUE(by_rows && by_columns);
  for (const ChannelCounts& c : {count(*by_rows, rows, 100), count(*by_columns, streams, 100)}) {
    EXPECT_EQ(c.channels, n);
    EXPECT_EQ(c.dead, 1);
    EXPECT_EQ(c.first_dead, 3);
    EXPECT_EQ(c.saturated, 0);
  }
}

// Of sparse weights the codes that are stored: two of every four, or as many as each row has.
TEST(Channels, SparseRows) {
  const int64_t n = 40, k = 640;
  std::vector<uint8_t> bytes(static_cast<size_t>(n * k / 2));
  std::mt19937 random(5);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(1 + random() % 100);
  std::fill_n(bytes.begin() + 3 * k / 2, k / 2, uint8_t{0});
  for (int64_t j = 0; j < k / 2; ++j)
    if (j % 3 != 0) bytes[static_cast<size_t>(5 * k / 2 + j)] = j % 2 == 0 ? 0x7F : 0x80;
  ir::Stored s = stored(Elem::i8, ir::row_major(n, k, 8), bytes.size());
  s.mask.tensor = "bits";
  const ir::Module m = module_of(Elem::i8, "int8_channel");
  const auto g = channel_grid(s, m);
  ASSERT_TRUE(g);
  expect_found(*g, bytes, n);

  // The same numbers, of which the next row has those that are not in the first; the last has none.
  s.view = ir::row_major(n + 1, k, 8);
  s.mask.starts = {0, k / 2 - 7};
  for (int64_t i = 2; i <= n; ++i) s.mask.starts.push_back(i * k / 2);
  s.mask.starts.push_back(n * k / 2);
  const auto uneven = channel_grid(s, m);
  ASSERT_TRUE(uneven);
  for (const size_t piece : {bytes.size(), size_t{7}}) {
    const ChannelCounts c = count(*uneven, bytes, piece);
    EXPECT_EQ(c.channels, n + 1);
    EXPECT_EQ(c.dead, 2);
    EXPECT_EQ(c.first_dead, 3);
    EXPECT_EQ(c.first_saturated, 5);
  }
  s.mask.starts.back() += 1;
  EXPECT_FALSE(channel_grid(s, m));
}

TEST(Channels, WhatLiesOtherwiseIsGathered) {
  ir::View planes{.dims = {32, 32}, .stride = {32, 3}, .planes = true};
  const ir::Module m = module_of(Elem::int3, "int4_g128");
  EXPECT_FALSE(channel_grid(stored(Elem::int3, planes, 384), m));
  const auto g = gathered_grid(stored(Elem::int3, planes, 384), m);
  ASSERT_TRUE(g);
  const Codes codes = damaged(32, 32, -4, 3, -1);
  std::vector<uint8_t> bytes;
  for (const auto& row : codes)
    for (const int c : row) bytes.push_back(static_cast<uint8_t>(c));
  expect_found(*g, bytes, 32);
  EXPECT_FALSE(channel_grid(stored(Elem::e4m3, ir::row_major(8, 8, 8), 65), module_of(Elem::e4m3, "fp8_tensor")));
  EXPECT_FALSE(gathered_grid(stored(Elem::e4m3, ir::row_major(8, 8, 8), 65), module_of(Elem::e4m3, "fp8_tensor")));
}

}  // namespace
}  // namespace qb
