// One output file while tasks fill it, and its header, which is written last.
#pragma once

#include <atomic>
#include <memory>

#include "exec/checksums.h"
#include "exec/run.h"
#include "exec/schedule.h"
#include "io/output.h"

namespace qb {

class FileWriter {
 public:
  FileWriter(const PlannedFile& planned, const ScheduledFile& scheduled, bool checksums, Isa isa);

  // Reserves the space. Called once, before the first task.
  Result<void> open(OutputDirectory& out);
  // `offset` counts from the start of the tensor data.
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes);
  // True for the last task of the file.
  bool task_done() { return tasks_left_.fetch_sub(1) == 1; }
  // Header, sync, journal. After the last task.
  Result<void> finish();

  Checksums* checksums() { return checksums_.get(); }
  bool is_open() const { return file_ != nullptr; }

 private:
  std::string header() const;

  const PlannedFile& planned_;
  std::unique_ptr<Checksums> checksums_;
  std::unique_ptr<OutputFile> file_;
  std::atomic<int64_t> tasks_left_;
  uint64_t bytes_, data_begin_ = 0;
};

}  // namespace qb
