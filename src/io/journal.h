// What an interrupted job had finished: the job's fingerprint and a line for each finished file, synced before the file counts as finished. POSIX.
//
//   quantbridge-partial 1
//   job <fingerprint>
//   file <bytes> <modification time in ns> <name>
//
// Bytes outside of printable ASCII, blanks and '%' stand as %XX. A last line without its newline was torn by a crash and is ignored.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "io/posix_file.h"

namespace qb {

class Journal {
 public:
  struct FileState {
    uint64_t bytes = 0;
    int64_t mtime_ns = 0;
    bool operator==(const FileState&) const = default;
  };
  struct Content {
    std::string fingerprint;  // empty: the job had finished and was about to be renamed
    std::map<std::string, FileState, std::less<>> files;
  };

  // None: there is no journal, or the file is none of ours.
  static std::optional<Content> read(const std::filesystem::path& path);
  // Replaces the file at `path` atomically and opens it for appending.
  static Result<Journal> create(const std::filesystem::path& path, const Content& content);

  Result<void> append(std::string_view name, const FileState& state);

 private:
  Journal(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  Fd fd_;
  std::string path_;
};

}  // namespace qb
