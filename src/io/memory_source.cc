#include "io/memory_source.h"

#include <fmt/format.h>

#include <algorithm>

namespace qb {

FileId MemorySource::add(std::vector<std::byte> bytes) {
  files_.push_back(std::move(bytes));
  return static_cast<FileId>(files_.size() - 1);
}

FileId MemorySource::add(std::string_view bytes) {
  const auto* begin = reinterpret_cast<const std::byte*>(bytes.data());
  return add(std::vector<std::byte>(begin, begin + bytes.size()));
}

Result<void> MemorySource::read(std::span<const ReadRequest> requests) {
  for (const ReadRequest& r : requests) {
    const uint64_t size = this->size(r.file);
    if (r.offset > size || r.into.size() > size - r.offset) {
      return Error{Errc::io, fmt::format("file {} in memory: {} bytes at {} lie beyond its end at {}", r.file, r.into.size(), r.offset, size)};
    }
    std::copy_n(files_[r.file].begin() + static_cast<std::ptrdiff_t>(r.offset), r.into.size(), r.into.begin());
  }
  return {};
}

}  // namespace qb
