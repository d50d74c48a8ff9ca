#include "cli/logits_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "base/diagnostics.h"
#include "io/safetensors.h"

namespace qb::cli {

Result<std::vector<std::vector<int32_t>>> read_input_ids(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{Errc::not_found, fmt::format("{} is missing or unreadable", path)};
  const std::string file((std::istreambuf_iterator<char>(in)), {});
  const std::span<const std::byte> bytes = std::as_bytes(std::span(file));
  Diagnostics diag;
  SafetensorsHeader header;
  uint64_t length = 0;
  const bool readable = file.size() >= 8 && parse_header_length(bytes.first(8), file.size(), path, length, diag) &&
                        parse_safetensors_header(bytes.subspan(8, length), file.size(), path, 0, header, diag);
  const TensorInfo* ids = nullptr;
  for (const TensorInfo& t : header.tensors)
    if (t.name == "input_ids") ids = &t;
  if (!readable || ids == nullptr || ids->shape.size() != 2 || (ids->dtype != Elem::i64 && ids->dtype != Elem::i32) || ids->elements() == 0)
    return Error{Errc::bad_input, fmt::format("{}: expected a safetensors file with input_ids [b, t] of I64 or I32", path)};
  std::vector<std::vector<int32_t>> rows(static_cast<size_t>(ids->shape[0]), std::vector<int32_t>(static_cast<size_t>(ids->shape[1])));
  const char* at = file.data() + ids->offset;
  for (auto& row : rows)
    for (int32_t& id : row) {
      int64_t wide = 0;
      int32_t narrow = 0;
      std::memcpy(ids->dtype == Elem::i64 ? static_cast<void*>(&wide) : static_cast<void*>(&narrow), at, ids->dtype == Elem::i64 ? 8 : 4);
      if (ids->dtype == Elem::i32) wide = narrow;
      if (wide < 0 || wide > INT32_MAX) return Error{Errc::bad_input, fmt::format("{}: {} is no token id", path, wide)};
      id = static_cast<int32_t>(wide);
      at += ids->dtype == Elem::i64 ? 8 : 4;
    }
  return rows;
}

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
