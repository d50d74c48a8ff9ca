// The tile registers of AMX as functions of a class, so that loops over them may have others in their place. Eight registers, each of up to 16 rows of up to 64
// bytes, belong to the thread; so do their shapes.
//
// Source of truth: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, "Programming with Intel AMX", and volume 2. For x86-64 and
// processors that have the feature alone (cpu.h, which also asks the system for the registers).
//
// By assembler, because the intrinsics of g++ 12 paste a register's number into their text, which no template argument can be. No compiler uses these registers
// by itself, so nothing else needs to be told.
#pragma once

#include <cstdint>

namespace qb::host {

// What `ldtilecfg` reads: palette 1.
struct TileShapes {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

#if defined(__x86_64__)
struct AmxTiles {
  static void shape(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" : : "m"(shapes)); }  // all become zero
  static void release() { __asm__ volatile("tilerelease"); }
  template <int tile>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  // Rows are `stride` bytes apart.
  template <int tile>
  static void load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(tile), "r"(from), "r"(stride) : "memory");
  }
  template <int tile>
  static void store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(tile), "r"(to), "r"(stride) : "memory");
  }
  // sum[m][n] += the products of row m of `a` with column n of `b`, whose rows hold what belongs together of each column: four bytes, with sign in `a` and
  // without in `b`, added up in 32 bits; or two bfloat16 numbers.
  template <int sum, int a, int b>
  static void dot_int8() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
  }
  template <int sum, int a, int b>
  static void dot_bf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
  }
};
#endif

}  // namespace qb::host
