// The layouts of ir/layout.h from rows.
#include <algorithm>
#include <cstring>

#include "exec/ops.h"

namespace qb::ops {
namespace {

constexpr int64_t panel_rows = ir::panel_rows;

// Four bytes of each row, as they lie: two bf16 numbers or four int8 codes.
void line_of_words(const std::byte* src, int64_t row_bytes, int64_t rows, int64_t first, std::byte* line) {
  const int64_t bytes = std::min<int64_t>(4, row_bytes - first);
  for (int64_t r = 0; r < rows; ++r) std::memcpy(line + 4 * r, src + r * row_bytes + first, static_cast<size_t>(bytes));
}

void line_of_fp8(const std::byte* src, int64_t row_bytes, int64_t rows, int64_t first, std::byte* line) {
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* row = src + r * row_bytes + first;
    std::byte* lane = line + r / 4 * 16 + r % 4 * 2;
    for (int64_t j = 0; j < std::min<int64_t>(4, row_bytes - first); ++j) lane[j / 2 * 8 + j % 2] = row[j];
  }
}

// Four bytes of a row hold k0|k1 k2|k3 k4|k5 k6|k7; the line wants k0|k4 k1|k5 k2|k6 k3|k7.
void line_of_fp4(const std::byte* src, int64_t row_bytes, int64_t rows, int64_t first, std::byte* line) {
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t in = 0, out = 0;
    std::memcpy(&in, src + r * row_bytes + first, static_cast<size_t>(std::min<int64_t>(4, row_bytes - first)));
    for (int k = 0; k < 8; ++k) out |= (in >> (4 * k) & 15U) << (k % 4 * 8 + k / 4 * 4);
    std::memcpy(line + 4 * r, &out, sizeof out);
  }
}

// Eight bytes of a row hold k0 to k7; its four bytes of the line want k0|k4 k1|k5 k2|k6 k3|k7, plus 8 each.
void line_of_int4(const std::byte* src, int64_t row_bytes, int64_t rows, int64_t first, std::byte* line) {
  const int64_t here = std::min<int64_t>(8, row_bytes - first);
  for (int64_t r = 0; r < rows; ++r) {
    uint64_t in = 0;
    std::memcpy(&in, src + r * row_bytes + first, static_cast<size_t>(here));
    in = (in & 0x0F0F0F0F0F0F0F0FU) ^ 0x0808080808080808U;
    const auto out = static_cast<uint32_t>(in | in >> 28);
    std::memcpy(line + 4 * r, &out, sizeof out);
  }
}

// 16 numbers, one of each row.
void line_of_numbers(const std::byte* src, int64_t row_bytes, int64_t rows, int64_t first, int64_t bytes, std::byte* line) {
  for (int64_t r = 0; r < rows; ++r) std::memcpy(line + bytes * r, src + r * row_bytes + first, static_cast<size_t>(bytes));
}

}  // namespace

void move_columns(const std::byte* src, int64_t rows, int64_t cols, Elem elem, std::span<const int32_t> columns, std::byte* dst) {
  const int64_t from = ir::panel_bytes(ir::Layout::rows, cols, bits(elem)), places = static_cast<int64_t>(columns.size());
  const int64_t to = ir::panel_bytes(ir::Layout::rows, places, bits(elem));
  for (int64_t r = 0; r < rows; ++r, src += from, dst += to) {
    if (bits(elem) == 8) {
      for (int64_t j = 0; j < places; ++j) dst[j] = columns[static_cast<size_t>(j)] < 0 ? std::byte{0} : src[columns[static_cast<size_t>(j)]];
      continue;
    }
    std::memset(dst, 0, static_cast<size_t>(to));
    for (int64_t j = 0; j < places; ++j) {
      const int64_t c = columns[static_cast<size_t>(j)];
      if (c >= 0) dst[j / 2] |= (src[c / 2] >> (c % 2 * 4) & std::byte{15}) << (j % 2 * 4);
    }
  }
}

void pack(const std::byte* src, int64_t rows, int64_t cols, Elem elem, ir::Layout layout, std::byte* dst) {
  const int64_t row_bytes = ir::panel_bytes(ir::Layout::rows, cols, bits(elem));
  if (layout == ir::Layout::rows) {
    if (rows * row_bytes != 0) std::memcpy(dst, src, static_cast<size_t>(rows * row_bytes));
    return;
  }
  const int64_t panel = ir::panel_bytes(layout, cols, bits(elem));
  for (int64_t first = 0; first < rows; first += panel_rows, src += panel_rows * row_bytes, dst += panel) {
    const int64_t here = std::min(panel_rows, rows - first);
    std::memset(dst, layout == ir::Layout::panel_int4 ? 0x88 : 0, static_cast<size_t>(panel));
    // A line takes `step` bytes of each row.
    const bool numbers = layout == ir::Layout::panel_scale || layout == ir::Layout::panel_plain;
    const int64_t step = numbers ? bits(elem) / 8 : layout == ir::Layout::panel_int4 ? 8 : 4, line = numbers ? panel_rows * step : 64;
    for (int64_t at = 0, to = 0; at < row_bytes; at += step, to += line) {
      switch (layout) {
        case ir::Layout::panel_fp8:
          line_of_fp8(src, row_bytes, here, at, dst + to);
          break;
        case ir::Layout::panel_fp4:
          line_of_fp4(src, row_bytes, here, at, dst + to);
          break;
        case ir::Layout::panel_int4:
          line_of_int4(src, row_bytes, here, at, dst + to);
          break;
        case ir::Layout::panel_plain:
        case ir::Layout::panel_scale:
          line_of_numbers(src, row_bytes, here, at, step, dst + to);
          break;
        default:
          line_of_words(src, row_bytes, here, at, dst + to);
          break;
      }
    }
  }
}

}  // namespace qb::ops
