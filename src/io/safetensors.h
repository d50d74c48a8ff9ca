// Safetensors headers, from (bytes, file size): total over bytes.
//
// Source of truth: the format description and the reference implementation's rules (safetensors 0.8): 8-byte little-endian header length, at most
// 100,000,000 bytes of JSON that starts with '{', optional padding with spaces; {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__":
// {string: string}}; the tensors cover the data section exactly: no holes, no overlaps, no trailing bytes; dtype x shape gives the byte count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/diagnostics.h"
#include "io/source.h"
#include "num/elem.h"

namespace qb {

struct TensorInfo {
  std::string name;
  Elem dtype = Elem::u8;
  std::vector<int64_t> shape;  // empty: rank 0
  FileId file = 0;
  uint64_t offset = 0;  // from the start of the file
  uint64_t bytes = 0;
  int64_t elements() const {  // 1 for rank 0; never overflows for a parsed tensor
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes; zero-sized tensors after their neighbours by name
  Metadata metadata;
  uint64_t data_begin = 0;  // 8 + header length
};

inline constexpr uint64_t safetensors_max_header = 100'000'000;

// Length of the JSON part from the first 8 bytes, or a problem (header-too-large, header-beyond-file, file-truncated).
bool parse_header_length(std::span<const std::byte> first8, uint64_t file_size, std::string_view file, uint64_t& length, Diagnostics& diag);

// `json` is the JSON part alone; `file_size` the size of the whole file. Every problem found is reported against `file` (the name to print); false when any
// was an error. Offsets in `out` are absolute. Codes: header-invalid-json, header-duplicate-key, header-not-utf8, dtype-unknown, tensor-shape-overflow,
// tensor-size-mismatch, tensor-overlap, tensor-hole, file-truncated, file-trailing-bytes.
bool parse_safetensors_header(std::span<const std::byte> json, uint64_t file_size, std::string_view file, FileId id, SafetensorsHeader& out, Diagnostics& diag);

// The header (length field, JSON, padding with spaces to a multiple of 8) of a file that holds `tensors` back to back in this order; `offset` and `file` of
// the tensors are ignored. Metadata comes first. Values keep their length if a caller later overwrites them in place (fixed-width checksums).
std::string write_safetensors_header(std::span<const TensorInfo> tensors, const Metadata& metadata);

}  // namespace qb
