#include "cli/logits_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>

#include "io/safetensors.h"

namespace qb::cli {

LogitsFile::~LogitsFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  ::unlink(partial_.c_str());
}

Result<void> LogitsFile::open(const std::string& path, size_t batch, size_t tokens, size_t vocab) {
  path_ = path;
  partial_ = path + ".partial";
  file_ = std::fopen(partial_.c_str(), "wb");
  if (file_ == nullptr) return Error{Errc::io, fmt::format("{} cannot be written: {}", path, std::strerror(errno))};
  TensorInfo t{.name = "logits", .dtype = Elem::f32, .shape = {static_cast<int64_t>(batch), static_cast<int64_t>(tokens), static_cast<int64_t>(vocab)}};
  t.bytes = static_cast<uint64_t>(t.elements()) * 4;
  const std::string header = write_safetensors_header(std::span(&t, 1), {{"format", "pt"}});
  if (std::fwrite(header.data(), 1, header.size(), file_) != header.size()) return Error{Errc::io, fmt::format("{} cannot be written", path)};
  return {};
}

Result<void> LogitsFile::write(std::span<const float> logits) {
  if (std::fwrite(logits.data(), sizeof(float), logits.size(), file_) != logits.size())
    return Error{Errc::out_of_space, fmt::format("{}: the disk is full", path_)};
  return {};
}

Result<void> LogitsFile::finish() {
  const bool synced = std::fflush(file_) == 0 && ::fsync(fileno(file_)) == 0;
  std::fclose(file_);
  file_ = nullptr;
  if (!synced || std::rename(partial_.c_str(), path_.c_str()) != 0)
    return Error{Errc::io, fmt::format("{} cannot be written: {}", path_, std::strerror(errno))};
  return {};
}

}  // namespace qb::cli
