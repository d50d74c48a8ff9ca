#include "io/posix_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/diagnostics.h"

namespace qb {

Fd::~Fd() {
  if (fd_ >= 0) close(fd_);
}

Error system_error(std::string_view verb, std::string_view name, int errnum) {
  Errc code = Errc::io;
  if (errnum == ENOENT || errnum == ENOTDIR) code = Errc::not_found;
  if (errnum == EEXIST) code = Errc::exists;
  // EFBIG: a limit on the size of files (ulimit -f) or of the file system. The way out is the same.
  if (errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG) code = Errc::out_of_space;
  return {code, fmt::format("cannot {} {}: {}", verb, escape(name), std::generic_category().message(errnum))};
}

Fd open_for_reading(int dir, const std::string& name) {
  for (;;) {
    const int fd = openat(dir, name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0 || errno != EINTR) return Fd(fd);
  }
}

Result<void> replace_file(const std::filesystem::path& path, std::string_view text) {
  const std::filesystem::path part = path.native() + ".part";
  const Fd fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!fd) return system_error("create", part.native(), errno);
  QB_TRY(write_at(fd.get(), 0, std::as_bytes(std::span(text)), part.native()));
  QB_TRY(sync_fd(fd.get(), part.native()));
  std::error_code ec;
  std::filesystem::rename(part, path, ec);
  if (ec) return system_error("rename", part.native(), ec.value());
  return {};
}

Result<Fd> lock_file(const std::filesystem::path& name, std::string_view busy) {
  Fd fd(open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!fd) return system_error("create", name.native(), errno);
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK)
      return Error{Errc::io, fmt::format("{} is locked: {}; wait for it or give another directory", escape(name.parent_path().native()), busy)};
    break;  // a file system without locks
  }
  return fd;
}

std::filesystem::path without_slashes(std::filesystem::path path) {
  while (!path.has_filename() && path.has_relative_path()) path = path.parent_path();
  return path;
}

int64_t read_at(int fd, uint64_t offset, std::span<std::byte> into) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t n = pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return static_cast<int64_t>(done);
}

Result<void> write_at(int fd, uint64_t offset, std::span<const std::byte> bytes, std::string_view name) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error("write", name, errno);
    offset += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<void> sync_fd(int fd, std::string_view name) {
  while (fsync(fd) != 0) {
    if (errno == EINTR) continue;
    if (errno == EINVAL || errno == ENOTSUP) return {};
    return system_error("sync", name, errno);
  }
  return {};
}

Result<void> sync_path(const std::filesystem::path& path) {
  const Fd fd = open_for_reading(AT_FDCWD, path.native());
  if (!fd) return system_error("open", path.native(), errno);
  return sync_fd(fd.get(), path.native());
}

}  // namespace qb
