// The arithmetic of programs on dense rows. Bit for bit what the formulas of prog/program.h say, whatever the instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "num/elem.h"
#include "prog/program.h"

namespace qb::ops {

// `count` numbers of `from` to `to` (f32, f16 or bf16), rounded to nearest even.
void recode(const std::byte* src, Elem from, std::byte* dst, Elem to, int64_t count);

// Numbers of `from` (f64, f32, f16 or bf16), widened exactly.
void to_doubles(const std::byte* src, Elem from, std::span<double> to);

// 1/x, rounded once in `elem` (f32, f16 or bf16).
void rescale(const std::byte* src, Elem elem, std::byte* dst, int64_t count);

struct DequantizeArgs {
  const prog::Dequantize& op;
  Elem scale_elem = Elem::f32, global_elem = Elem::f32;
  const std::byte *code = nullptr, *scale = nullptr, *global = nullptr;  // rows of this block; global may be null
  const std::byte *zero = nullptr, *order = nullptr;                     // null where the type has none
  std::byte* out = nullptr;                                              // float32
  int64_t first_row = 0, rows = 0, cols = 0;                             // first_row: of the block, in the whole matrix
};
// (code - zero) * scale * global in real arithmetic, rounded once to float32. An error where the order names a group that does not exist.
Result<void> dequantize(const DequantizeArgs&);

struct FoldArgs {
  const float *src = nullptr, *a = nullptr, *b = nullptr, *prescale = nullptr;  // [rows, cols], [rank, cols], [rows, rank], [cols]; null: without
  float* out = nullptr;
  int64_t rows = 0, cols = 0, rank = 0;
};
// prog::Fold.
void fold(const FoldArgs&);

struct HadamardArgs {
  const prog::Hadamard& op;
  const std::byte *src = nullptr, *gains = nullptr;  // gains: may be null
  Elem elem = Elem::bf16, gains_elem = Elem::bf16;
  std::byte* out = nullptr;                   // of op.to
  int64_t first_row = 0, rows = 0, cols = 0;  // first_row: of the block, in the whole matrix
};
// prog::Hadamard. Works in tiles of largest_basis^2 doubles at most.
void hadamard(const HadamardArgs&);

// rows x cols elements of `bytes` (1, 2 or 4) as cols x rows.
void turn(const std::byte* src, int64_t rows, int64_t cols, int bytes, std::byte* dst);

// rows x cols codes, one to a byte, as the words that the op describes.
void pack_words(const std::byte* codes, int64_t rows, int64_t cols, const prog::PackWords& op, std::byte* words);

// Codes of four bits, two to a byte; `rows` (of pairs of rows) or `cols` is even.
void pack_nibbles(const std::byte* codes, int64_t rows, int64_t cols, ir::Nibbles order, std::byte* bytes);
// The same of four-bit floats, whose rows come two to a byte: row pairs.
void pair_rows(const std::byte* codes, int64_t rows, int64_t cols, std::byte* bytes);

// `rows` rows of codes of 4 or 8 bits with their columns moved: place j gets column columns[j], 0 where that is -1. Every row begins with a whole byte.
void move_columns(const std::byte* src, int64_t rows, int64_t cols, Elem elem, std::span<const int32_t> columns, std::byte* dst);

// rows x cols codes, every row from a whole byte on, in the layout's order: ceil(rows / 16) panels (or `rows` rows) of ir::panel_bytes.
void pack(const std::byte* src, int64_t rows, int64_t cols, Elem elem, ir::Layout layout, std::byte* dst);

}  // namespace qb::ops
