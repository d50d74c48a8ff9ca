// The order of bytes that a kernel reads. A layout is a value; exec/pack.cc makes it from rows, the kernels of its family read it.
//
// Panels: 16 output rows interleaved, k-major, so that a lane is a row and nothing is summed across lanes. A panel is `steps` lines of 64 bytes; rows past n
// and columns past k are zero codes. Blocks of whole panels are contiguous, so weights stream from disk into place.
//   rows        row-major codes as stored: what the reference kernels read
//   panel_bf16  line = 16 rows x 2 k (row r: bytes 4r..4r+3)
//   panel_fp8   line = 16 rows x 4 k: in each 16-byte lane, four rows x (k0,k1), then the same rows x (k2,k3)
//   panel_fp4   line = 16 rows x 8 k: byte 4r+j holds row r's k = j (low nibble) and k = j+4 (high nibble); whole pairs of lines, that is 16 k
//   panel_scale 16 bytes (one E4M3 for each row) for each group along k
#pragma once

#include <cstdint>
#include <string_view>

namespace qb::ir {

enum class Layout : uint8_t { rows, panel_bf16, panel_fp8, panel_fp4, panel_scale };

std::string_view to_string(Layout);

inline constexpr int64_t panel_rows = 16;

// Bytes of one panel (of one row for `rows`) for k columns of codes; for panel_scale k is the number of groups. bits: of one code, for `rows`.
int64_t panel_bytes(Layout, int64_t k, int bits);

}  // namespace qb::ir
