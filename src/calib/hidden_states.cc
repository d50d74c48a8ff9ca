#include "calib/hidden_states.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace qb::calib {
namespace {

// Not every file system has files without a name: then one loses it at once.
Result<Fd> nameless_file(const std::filesystem::path& directory) {
  if (Fd fd(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)); fd) return fd;
  std::string name = (directory / "hidden-states-XXXXXX").string();
  Fd fd(::mkstemp(name.data()));
  if (!fd) return system_error("make a file in", directory.string(), errno);
  ::unlink(name.c_str());
  return fd;
}

}  // namespace

Result<HiddenStates> HiddenStates::make(std::span<const int64_t> tokens, int64_t width, uint64_t memory, const std::filesystem::path& scratch) {
  HiddenStates h;
  uint64_t count = 0;
  for (const int64_t t : tokens) {
    h.begins_.push_back(count);
    count += static_cast<uint64_t>(t) * static_cast<uint64_t>(width);
  }
  if (count * sizeof(float) <= memory) {
    h.floats_.resize(count);
  } else {
    QB_ASSIGN(h.file_, nameless_file(scratch));
  }
  return h;
}

Result<void> HiddenStates::load(size_t sample, std::span<float> into) const {
  const uint64_t begin = begins_[sample];
  if (in_memory()) {
    std::copy_n(floats_.begin() + static_cast<std::ptrdiff_t>(begin), into.size(), into.begin());
    return {};
  }
  const std::span<std::byte> bytes = std::as_writable_bytes(into);
  const int64_t got = read_at(file_.get(), begin * sizeof(float), bytes);
  if (got == static_cast<int64_t>(bytes.size())) return {};
  return system_error("read", "the file of hidden states", got < 0 ? errno : EIO);
}

Result<void> HiddenStates::store(size_t sample, std::span<const float> from) {
  const uint64_t begin = begins_[sample];
  if (!in_memory()) return write_at(file_.get(), begin * sizeof(float), std::as_bytes(from), "the file of hidden states");
  std::copy(from.begin(), from.end(), floats_.begin() + static_cast<std::ptrdiff_t>(begin));
  return {};
}

}  // namespace qb::calib
