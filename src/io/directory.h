// A checkpoint directory as a Package: config.json, safetensors shards (links are followed, names in the index are not allowed to leave the directory).
//
// Which files count: only shards that model.safetensors.index.json names, or model.safetensors. Other weight files (consolidated*, *.bin, *.pt, *.pth, *.gguf,
// *.onnx, original/) are foreign; .git and .cache are skipped; everything else is an "other file". POSIX.
#pragma once

#include <filesystem>

#include "base/diagnostics.h"
#include "io/package.h"

namespace qb {

// An Error: the path is missing, not a directory or unreadable (exit 3). Everything wrong with the contents goes to `diag` (config-missing, json-*, header-*,
// index-*, shard-missing, weights-missing, tensor-duplicate, ...) and what could be read is in the Package all the same.
Result<Package> open_directory(const std::filesystem::path& path, Diagnostics& diag);

// Copies the other files of `in` (a Package of open_directory, whose directory is `from`) that are not in `skip` to the open directory `to`; real files, modes
// from the umask. Files of more than 1 MiB are copied in blocks.
Result<void> copy_other_files(const std::filesystem::path& from, const Package& in, const std::filesystem::path& to, std::span<const std::string> skip);

}  // namespace qb
