// A Source over bytes in memory, for tests, fuzzers and callers that have a checkpoint in memory.
#pragma once

#include <string>
#include <vector>

#include "io/source.h"

namespace qb {

class MemorySource : public Source {
 public:
  MemorySource() = default;
  explicit MemorySource(std::vector<std::vector<std::byte>> files) : files_(std::move(files)) {}
  // FileId of the added file. Not thread-safe; add before reading.
  FileId add(std::vector<std::byte> bytes);
  FileId add(std::string_view bytes);

  uint64_t size(FileId file) const override { return file < files_.size() ? files_[file].size() : 0; }
  Result<void> read(std::span<const ReadRequest> requests) override;

 private:
  std::vector<std::vector<std::byte>> files_;
};

}  // namespace qb
