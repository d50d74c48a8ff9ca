#include "io/directory_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <tuple>
#include <vector>

#include "base/diagnostics.h"

namespace qb {
namespace {

constexpr size_t most_in_group = 128;  // requests; with the gaps between them below IOV_MAX

// Advances over `n` bytes that were read.
void consume(std::span<iovec>& parts, size_t n) {
  while (!parts.empty() && n >= parts.front().iov_len) {
    n -= parts.front().iov_len;
    parts = parts.subspan(1);
  }
  if (n == 0) return;
  parts.front().iov_base = static_cast<std::byte*>(parts.front().iov_base) + n;
  parts.front().iov_len -= n;
}

}  // namespace

Result<FileId> DirectorySource::open(const std::string& name) {
  Fd fd = open_for_reading(dir_.get(), name);
  const std::string full = path_ + "/" + name;
  if (!fd) return system_error("open", full, errno);
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return system_error("open", full, errno);
  if (!S_ISREG(st.st_mode)) return Error{Errc::io, fmt::format("cannot read {}: it is not a file", escape(full))};
  posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  if (files_.size() >= keep_open_) fd = Fd();
  files_.push_back({name, static_cast<uint64_t>(st.st_size), static_cast<uint64_t>(st.st_dev), static_cast<uint64_t>(st.st_ino), std::move(fd)});
  return static_cast<FileId>(files_.size() - 1);
}

Result<void> DirectorySource::read(std::span<const ReadRequest> requests) {
  std::vector<const ReadRequest*> order;
  order.reserve(requests.size());
  for (const ReadRequest& r : requests) {
    if (r.file >= files_.size()) return Error{Errc::invalid_argument, fmt::format("{} has no file number {}", escape(path_), r.file)};
    const File& file = files_[r.file];
    if (r.offset > file.size || r.into.size() > file.size - r.offset) {
      return Error{Errc::io, fmt::format("{}: {} bytes at {} lie beyond its end at {}", escape(full_name(file)), r.into.size(), r.offset, file.size)};
    }
    if (!r.into.empty()) order.push_back(&r);
  }
  std::sort(order.begin(), order.end(), [](const ReadRequest* a, const ReadRequest* b) {
    return std::tuple(a->file, a->offset, a->into.size()) < std::tuple(b->file, b->offset, b->into.size());
  });
  for (size_t i = 0; i < order.size();) {
    size_t end = i + 1;
    while (end < order.size() && order[end]->file == order[i]->file) ++end;
    QB_TRY(read_file(files_[order[i]->file], std::span(order).subspan(i, end - i)));
    i = end;
  }
  return {};
}

Result<void> DirectorySource::read_file(const File& file, std::span<const ReadRequest* const> requests) const {
  Fd again;
  if (!file.fd) {
    again = open_for_reading(dir_.get(), file.name);
    struct stat st {};
    if (!again || fstat(again.get(), &st) != 0) return system_error("open", full_name(file), errno);
    if (static_cast<uint64_t>(st.st_dev) != file.device || static_cast<uint64_t>(st.st_ino) != file.inode || static_cast<uint64_t>(st.st_size) != file.size) {
      return Error{Errc::io, fmt::format("{} was replaced while it was read; run again when nothing writes to it", escape(full_name(file)))};
    }
  }
  const int fd = file.fd ? file.fd.get() : again.get();
  for (size_t i = 0; i < requests.size();) {
    size_t end = i + 1;
    uint64_t at = requests[i]->offset + requests[i]->into.size();
    while (end < requests.size() && end - i < most_in_group && requests[end]->offset >= at && requests[end]->offset - at <= max_gap) {
      at = requests[end]->offset + requests[end]->into.size();
      ++end;
    }
    QB_TRY(read_group(file, fd, requests.subspan(i, end - i)));
    i = end;
  }
  return {};
}

Result<void> DirectorySource::read_group(const File& file, int fd, std::span<const ReadRequest* const> requests) const {
  std::array<iovec, 2 * most_in_group> storage;
  std::vector<std::byte> waste;
  size_t count = 0;
  const uint64_t begin = requests.front()->offset;
  uint64_t at = begin;
  for (const ReadRequest* r : requests) {
    if (r->offset > at) {
      if (waste.empty()) waste.resize(max_gap);
      storage[count++] = {waste.data(), r->offset - at};
    }
    storage[count++] = {r->into.data(), r->into.size()};
    at = r->offset + r->into.size();
  }
  std::span<iovec> parts(storage.data(), count);
  for (uint64_t pos = begin; pos < at;) {
    const ssize_t n = preadv(fd, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(pos));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error("read", full_name(file), errno);
    if (n == 0) {
      return Error{Errc::io, fmt::format("{} shrank while it was read: it ends at {}, it had {} bytes; run again when nothing writes to it",
                                         escape(full_name(file)), pos, file.size)};
    }
    pos += static_cast<uint64_t>(n);
    consume(parts, static_cast<size_t>(n));
  }
  return {};
}

}  // namespace qb
