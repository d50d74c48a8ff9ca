// model.safetensors.index.json: which shard holds which tensor.
//
// Source of truth: the files that transformers and its relatives write: {"metadata": {...}, "weight_map": {tensor: file}}. Names of files come from strangers:
// one that leaves the directory is reported and never opened. The index is checked against the shards' own headers, which are what counts.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "io/package.h"

namespace qb {

inline constexpr std::string_view shard_index_name = "model.safetensors.index.json";

struct ShardIndex {
  struct Entry {
    std::string tensor;
    size_t file;  // position in `files`
  };
  std::vector<std::string> files;  // sorted; safe to open below the directory
  std::vector<Entry> tensors;      // sorted by name, names unique
};

// False: nothing of it is usable. Codes: json-invalid, json-too-deep, json-duplicate-key, index-invalid, index-path-traversal (only these files are left out).
bool parse_shard_index(std::string_view text, ShardIndex& out, Diagnostics& diag);

// What became of a file that the index names.
struct IndexedFile {
  std::optional<FileId> id;  // none: it was not there
  bool complete = false;     // its header gave every tensor, so that a tensor that is not there is missing
};

// Sorts the tensors of all files by name and leaves one for each name: the one in the file that the index names. `index` is null where there is none.
// Codes: tensor-duplicate, index-tensor-missing, index-tensor-unlisted.
void merge_tensors(Package& package, const ShardIndex* index, std::span<const IndexedFile> files, Diagnostics& diag);

}  // namespace qb
