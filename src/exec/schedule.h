// What a run does, cut into tasks before anything is read.
//
// A task is what one thread does at a time: read, compute, hash, write. Bytes that are moved and not changed are cut by size, whatever tensors they belong to,
// so that a file of them becomes large sequential reads and writes; small programs share a task with their neighbours; a large program becomes tasks of some
// rows. Tasks are in file order and are handed out in that order: the pieces of one tensor are hashed one after the other, and the thread with the first
// unhashed piece never waits, so no thread waits for ever.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exec/compiled.h"
#include "exec/run.h"

namespace qb {

struct Item {
  uint32_t program = 0;  // index into ScheduledFile::programs
  uint32_t tensor = 0;   // index into ScheduledFile::tensors: of the output that bytes are moved to, or of the first output
  uint32_t output = 0;   // index into the program's outputs of the one that bytes are moved to
  bool moves = false;    // one output's bytes begin..end; otherwise rows begin..end of all outputs
  int64_t begin = 0, end = 0;
};

struct Task {
  uint32_t file = 0;
  size_t first_item = 0, items = 0;
  // Where the outputs lie in the file's data, one behind the other; a large program's outputs lie apart, so its tasks have a single item and no range.
  uint64_t begin = 0, end = 0;
  bool apart = false;
};

struct ScheduledTensor {
  uint64_t begin = 0, bytes = 0;  // in the file's data
};

struct ScheduledFile {
  std::vector<Compiled> programs;
  std::vector<ScheduledTensor> tensors;  // of all programs' outputs, in order
  std::vector<Item> items;
  uint64_t bytes = 0, bytes_in = 0, bytes_unchanged = 0;
  int64_t tasks = 0;
};

struct Schedule {
  std::vector<ScheduledFile> files;
  std::vector<Task> tasks;
  int threads = 1;
  uint64_t thread_bytes = 0;  // buffers of one thread
};

// `skip[f]`: the file is finished, it gets no tasks.
Result<Schedule> make_schedule(std::span<const PlannedFile> files, const std::vector<bool>& skip, const Limits& limits);

}  // namespace qb
