// quantbridge.origin: what a target dialect cannot hold but the way back needs. Strings in the safetensors metadata, at most 128 bytes for each touched tensor.
//
// One entry describes how a stored tensor differed from its dialect's usual form: "dtype=BF16;shape=1;bits=3f800000". It is only a hint: it is used where it
// re-derives to the values in the file, so that a stale or forged entry can never change a number.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/package.h"
#include "num/elem.h"

namespace qb {

struct OriginEntry {
  std::optional<Elem> dtype;
  std::optional<std::vector<int64_t>> shape;
  std::string bits;     // original bytes of a scalar
  bool absent = false;  // the tensor was not in the file; its value is the default
  bool empty() const { return !dtype && !shape && bits.empty() && !absent; }
};

std::string to_text(const OriginEntry&);
OriginEntry parse_origin_entry(std::string_view text);  // what cannot be read is left out

// All entries of a package, and what concerns the whole checkpoint.
struct Origin {
  std::string dialect;  // that the entries are about; empty: none
  std::unordered_map<std::string, std::string> tensors, document;
};
Origin read_origin(const Package&);
// The metadata value for one file: the document entries and those of its tensors.
std::string origin_metadata(const Origin&, const std::vector<std::string>& tensors);

inline constexpr std::string_view origin_key = "quantbridge.origin";

}  // namespace qb
