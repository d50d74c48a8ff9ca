// The order of bytes that a kernel reads. A layout is a value; exec/pack.cc makes it from rows, the kernels of its family read it.
//
// Panels: 16 output rows interleaved, k-major, so that a lane is a row and nothing is summed across lanes. A panel is `steps` lines of 64 bytes; rows past n
// and columns past k are codes of zero. Blocks of whole panels are contiguous, so weights stream from disk into place.
//   rows        row-major codes as stored: what the reference kernels read
//   panel_bf16  line = 16 rows x 2 k (row r: bytes 4r..4r+3)
//   panel_plain line = 16 numbers, one of each row, of two k each: float16 or float32
//   panel_fp8   line = 16 rows x 4 k: in each 16-byte lane, four rows x (k0,k1), then the same rows x (k2,k3)
//   panel_fp4   line = 16 rows x 8 k: byte 4r+j holds row r's k = j (low nibble) and k = j+4 (high nibble); whole pairs of lines, that is 16 k
//   panel_int4  as panel_fp4, integers of up to four bits: a nibble holds code + 8
//   panel_int8  line = 16 rows x 4 k: byte 4r+j holds row r's k = j, as it is
//   panel_scale 16 numbers (one for each row) for each group along k: E4M3 or E8M0 scales, float32 multipliers, zero points as int8
#pragma once

#include <cstdint>
#include <string_view>

namespace qb::ir {

enum class Layout : uint8_t { rows, panel_bf16, panel_plain, panel_fp8, panel_fp4, panel_int4, panel_int8, panel_scale };

std::string_view to_string(Layout);

inline constexpr int64_t panel_rows = 16;

// Bytes of one panel (of one row for `rows`) for k columns of codes; for panel_scale k is the number of groups. bits: of one code or scale, for `rows`,
// panel_plain and panel_scale.
int64_t panel_bytes(Layout, int64_t k, int bits);
// k is filled up to a multiple of this: a line, or the lines that lie together.
constexpr int64_t unit_of(Layout layout) {
  switch (layout) {
    case Layout::panel_bf16:
    case Layout::panel_plain:
      return 2;
    case Layout::panel_fp8:
    case Layout::panel_int8:
      return 4;
    case Layout::panel_fp4:
    case Layout::panel_int4:
      return 16;
    case Layout::rows:
    case Layout::panel_scale:
      break;
  }
  return 1;
}

}  // namespace qb::ir
