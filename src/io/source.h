// Where bytes come from: files addressed by id, read in batches. Implementations: io/directory (POSIX), tests (memory).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace qb {

using FileId = uint32_t;

struct ReadRequest {
  FileId file;
  uint64_t offset;
  std::span<std::byte> into;  // exactly this many bytes are read
};

class Source {
 public:
  virtual ~Source() = default;
  virtual uint64_t size(FileId file) const = 0;
  // Reads every range or fails; a range beyond the end of the file is an error that names the file. Requests may come in any order and are coalesced where
  // they lie close together. Thread-safe.
  virtual Result<void> read(std::span<const ReadRequest> requests) = 0;
};

}  // namespace qb
