// File descriptors that close themselves, and errors with a file's name. POSIX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace qb {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// "cannot <verb> <name>: <the system's words>"; the code follows from `errnum`.
Error system_error(std::string_view verb, std::string_view name, int errnum);

// openat, for reading, following links and never waiting for a pipe's other end. An invalid Fd: errno says why.
Fd open_for_reading(int dir, const std::string& name);

// Bytes read, fewer than asked for only at the end of the file; negative: errno says why.
int64_t read_at(int fd, uint64_t offset, std::span<std::byte> into);

Result<void> write_at(int fd, uint64_t offset, std::span<const std::byte> bytes, std::string_view name);

// Makes the file, or puts it in the place of the one that is there: whole or not at all.
Result<void> replace_file(const std::filesystem::path& path, std::string_view text);

// Takes a lock, which dies with the process, on a file that is made if need be; file systems without locks are taken at their word. An Error: somebody else has
// it; `busy` says what that one does ("another process is writing this output"). errno is ENOENT where the directory is not there.
Result<Fd> lock_file(const std::filesystem::path& name, std::string_view busy);

// A directory's path without slashes at its end.
std::filesystem::path without_slashes(std::filesystem::path path);

// Syncs a file or a directory. File systems that cannot sync a directory are taken at their word.
Result<void> sync_path(const std::filesystem::path& path);
Result<void> sync_fd(int fd, std::string_view name);

}  // namespace qb
