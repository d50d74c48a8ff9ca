// A Source over the files of a directory. Requests that lie close together become one read; no byte is copied twice. POSIX.
//
// Rejected: mmap (a file that shrinks is a signal instead of an error); a scratch buffer for coalescing (one system call can scatter into the requests' own
// memory, gaps go to a small waste buffer).
#pragma once

#include <deque>
#include <string>

#include "io/posix_file.h"
#include "io/source.h"

namespace qb {

class DirectorySource : public Source {
 public:
  // Requests whose gap is at most this many bytes are read together: reading 64 KiB costs about what a second system call and seek cost.
  static constexpr uint64_t max_gap = 64 << 10;

  // `keep_open`: files beyond this number are opened again for every read.
  DirectorySource(Fd dir, std::string path, size_t keep_open) : dir_(std::move(dir)), path_(std::move(path)), keep_open_(keep_open) {}

  // Adds the next file. An error names it; not_found where there is none. Not thread-safe; all files are opened before the first read.
  Result<FileId> open(const std::string& name);

  uint64_t size(FileId file) const override { return file < files_.size() ? files_[file].size : 0; }
  Result<void> read(std::span<const ReadRequest> requests) override;

 private:
  struct File {
    std::string name;
    uint64_t size = 0, device = 0, inode = 0;
    Fd fd;
  };

  Result<void> read_file(const File& file, std::span<const ReadRequest* const> requests) const;
  Result<void> read_group(const File& file, int fd, std::span<const ReadRequest* const> requests) const;
  std::string full_name(const File& file) const { return path_ + "/" + file.name; }

  Fd dir_;
  std::string path_;
  size_t keep_open_;
  std::deque<File> files_;
};

}  // namespace qb
