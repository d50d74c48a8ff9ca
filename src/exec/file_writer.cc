#include "exec/file_writer.h"

#include <fmt/format.h>

#include "base/json.h"

namespace qb {

FileWriter::FileWriter(const PlannedFile& planned, const ScheduledFile& scheduled, bool checksums, Isa isa)
    : planned_(planned),
      checksums_(checksums ? std::make_unique<Checksums>(scheduled.tensors, isa) : nullptr),
      tasks_left_(scheduled.tasks),
      bytes_(scheduled.bytes) {}

// Checksums have a fixed width, so the header has its final length before a tensor was hashed.
std::string FileWriter::header() const {
  std::vector<TensorInfo> tensors;
  Json::object_t sums;
  for (const prog::Program& p : planned_.programs) {
    for (const prog::Output& o : p.outputs) {
      if (checksums_ != nullptr) sums.emplace_back(o.name, checksums_->hex(tensors.size()));
      tensors.push_back({.name = o.name, .dtype = o.dtype, .shape = o.shape, .bytes = prog::output_bytes(o)});
    }
  }
  Metadata metadata = planned_.metadata;
  if (checksums_ != nullptr) metadata.emplace_back("quantbridge.checksums", dump_json(Json(std::move(sums)), -1));
  return write_safetensors_header(tensors, metadata);
}

Result<void> FileWriter::open(OutputDirectory& out) {
  data_begin_ = header().size();
  if (data_begin_ - 8 > safetensors_max_header) {
    return Error{Errc::invalid_argument,
                 fmt::format("{}: a header of {} bytes, at most {} are allowed; write smaller files", planned_.name, data_begin_ - 8, safetensors_max_header)};
  }
  QB_ASSIGN(file_, out.open(planned_.name));
  return file_->reserve(data_begin_ + bytes_);
}

Result<void> FileWriter::write(uint64_t offset, std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  QB_TRY(file_->write(data_begin_ + offset, bytes));
  file_->write_back(data_begin_ + offset, bytes.size());
  return {};
}

Result<void> FileWriter::finish() {
  const std::string text = header();
  QB_TRY(file_->write(0, std::as_bytes(std::span(text))));
  QB_TRY(file_->finish());
  file_.reset();
  return {};
}

}  // namespace qb
