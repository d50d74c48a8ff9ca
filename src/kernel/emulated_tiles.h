// The tile registers of host/tiles.h in memory: what the manual's pseudo code says of each instruction, and an abort where the processor would refuse it. For
// tests alone.
//
// Source of truth: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TILERELEASE, TDPBSUD,
// TDPBF16PS.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "host/tiles.h"

namespace qb::kernel {

class EmulatedTiles {
 public:
  static void shape(const host::TileShapes& s) {
    expect(s.palette == 1 && s.start_row == 0);
    for (const uint8_t byte : s.reserved) expect(byte == 0);
    for (size_t t = 0; t < 16; ++t) {
      expect(t < count || (s.rows[t] == 0 && s.row_bytes[t] == 0));
      expect(s.rows[t] <= most_rows && s.row_bytes[t] <= most_bytes && (s.rows[t] == 0) == (s.row_bytes[t] == 0));
    }
    registers = {};
    registers.shaped = true;
    for (size_t t = 0; t < count; ++t) registers.tiles[t] = {s.rows[t], s.row_bytes[t], {}};
  }
  static void release() { registers = {}; }
  static bool released() { return !registers.shaped; }
  template <int t>
  static void zero() {
    std::memset(tile<t>().data, 0, sizeof(Tile::data));
  }
  template <int t>
  static void load(const void* from, int64_t stride) {
    zero<t>();
    Tile& to = tile<t>();
    for (int64_t r = 0; r < to.rows; ++r) std::memcpy(to.data[r], static_cast<const char*>(from) + r * stride, to.bytes);
  }
  template <int t>
  static void store(void* to, int64_t stride) {
    const Tile& from = tile<t>();
    for (int64_t r = 0; r < from.rows; ++r) std::memcpy(static_cast<char*>(to) + r * stride, from.data[r], from.bytes);
  }
  template <int sum, int a, int b>
  static void dot_int8() {
    auto [to, x, w] = operands<sum, a, b>();
    for (int m = 0; m < to.rows; ++m) {
      uint32_t t[most_words];
      std::memcpy(t, to.data[m], sizeof t);
      for (int k = 0; k < w.rows; ++k) {
        for (int n = 0; n < most_words; ++n) {
          for (int j = 0; j < 4; ++j) t[n] += static_cast<uint32_t>(static_cast<int8_t>(x.data[m][4 * k + j]) * int{w.data[k][4 * n + j]});
        }
      }
      write(to, m, t);
    }
  }
  // Even and odd columns have sums of their own, from 0, by multiply-adds; both are added, then what was there.
  template <int sum, int a, int b>
  static void dot_bf16() {
    auto [to, x, w] = operands<sum, a, b>();
    for (int m = 0; m < to.rows; ++m) {
      float t[most_words], odd[most_words] = {}, even[most_words] = {};
      std::memcpy(t, to.data[m], sizeof t);
      for (int k = 0; k < w.rows; ++k) {
        for (int n = 0; n < most_words; ++n) {
          even[n] = flushed(std::fma(number(x, m, 2 * k), number(w, k, 2 * n), even[n]));
          odd[n] = flushed(std::fma(number(x, m, 2 * k + 1), number(w, k, 2 * n + 1), odd[n]));
        }
      }
      for (int n = 0; n < most_words; ++n) t[n] = flushed(flushed(t[n]) + flushed(even[n] + odd[n]));
      write(to, m, t);
    }
  }

 private:
  static constexpr int count = 8, most_rows = 16, most_bytes = 64, most_words = 16;
  struct Tile {
    uint8_t rows;
    uint16_t bytes;
    uint8_t data[most_rows][most_bytes];
  };
  struct Registers {
    bool shaped;
    Tile tiles[count];
  };
  static inline thread_local Registers registers;  // zero: not shaped

  static void expect(bool allowed) {
    if (!allowed) std::abort();
  }
  template <int t>
  static Tile& tile() {
    static_assert(t >= 0 && t < count);
    expect(registers.shaped && registers.tiles[t].rows != 0);
    return registers.tiles[t];
  }
  struct Operands {
    Tile &to, &x, &w;
  };
  template <int sum, int a, int b>
  static Operands operands() {
    static_assert(sum != a && sum != b && a != b);
    const Operands o{tile<sum>(), tile<a>(), tile<b>()};
    expect(o.to.bytes % 4 == 0 && o.x.bytes % 4 == 0 && o.to.rows == o.x.rows && o.x.bytes == 4 * o.w.rows && o.to.bytes == o.w.bytes);
    return o;
  }
  template <class T>
  static void write(Tile& to, int row, const T (&sums)[most_words]) {
    std::memset(to.data[row], 0, most_bytes);
    std::memcpy(to.data[row], sums, to.bytes);
  }
  static float flushed(float x) {
    const auto bits = std::bit_cast<uint32_t>(x);
    return (bits & 0x7F800000U) == 0 ? std::bit_cast<float>(bits & 0x80000000U) : x;
  }
  static float number(const Tile& t, int row, int at) {
    uint16_t half;
    std::memcpy(&half, t.data[row] + 2 * at, sizeof half);
    return flushed(std::bit_cast<float>(uint32_t{half} << 16));
  }
};

}  // namespace qb::kernel
