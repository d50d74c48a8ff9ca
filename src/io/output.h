// A crash-safe output directory. All work happens in OUT.partial beside OUT, locked; commit() syncs everything and renames. Until then no OUT exists, so
// nothing half-written ever looks whole. Linux (renameat2: no-replace, or exchange under --force; with fallbacks).
//
// Resuming: OUT.partial holds a journal with the fingerprint of the job and the names of finished files. A second run with the same fingerprint keeps those
// (after checking size and modification time against the journal); another fingerprint restarts.
//
// Several processes may fill one directory: the first creates and commits it, the others join. Nobody takes it over while one of them still holds its lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace qb {

// A file being written at offsets; thread-safe for disjoint ranges.
class OutputFile {
 public:
  virtual ~OutputFile() = default;
  // Reserves the space (posix_fallocate); out_of_space is an error before a byte is written.
  virtual Result<void> reserve(uint64_t size) = 0;
  virtual Result<void> write(uint64_t offset, std::span<const std::byte> bytes) = 0;
  // Starts writing back [offset, offset+size) without waiting, so that finish() has little left to do.
  virtual void write_back(uint64_t offset, uint64_t size) = 0;
  // Syncs the data, closes, and records the file as finished in the journal.
  virtual Result<void> finish() = 0;
};

class OutputDirectory {
 public:
  enum class Start : uint8_t { fresh, resumed, restarted };  // restarted: a partial directory of another job was thrown away

  // Errors: exists (OUT exists and not `force`), invalid_argument (OUT is `in`, inside it, or contains it), io (locked by another process: says so),
  // out_of_space (`bytes` do not fit on the file system; the finished files of a resumed job and OUT under force are not counted twice).
  static Result<std::unique_ptr<OutputDirectory>> create(const std::filesystem::path& out, const std::filesystem::path& in, bool force,
                                                         std::string_view fingerprint, uint64_t bytes);
  // Another process of the same job, `rank` above 0, writes files into the directory that the first one has made: `files` is its path(). This one keeps a
  // journal and a lock of its own, which a later `create` goes by; it neither commits nor removes anything. Errors: invalid_argument (the directory is another
  // job's).
  static Result<std::unique_ptr<OutputDirectory>> join(const std::filesystem::path& files, int rank, std::string_view fingerprint);
  virtual ~OutputDirectory() = default;  // not committed: removes OUT.partial

  virtual Start start() const = 0;
  virtual const std::filesystem::path& path() const = 0;   // where the files are until commit(); inside of OUT.partial
  virtual bool finished(std::string_view file) const = 0;  // by an earlier run
  virtual Result<std::unique_ptr<OutputFile>> open(std::string_view file) = 0;
  // A small file, written whole and synced.
  virtual Result<void> write_file(std::string_view file, std::string_view bytes) = 0;
  virtual Result<void> commit() = 0;
};

// One file outside of such a directory, written beside itself, synced and renamed: it is there whole or not at all. `exists` where it is there and not `force`.
Result<void> write_whole_file(const std::filesystem::path& file, std::string_view bytes, bool force);

}  // namespace qb
