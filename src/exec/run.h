// The schedule: writes the output files of a plan, block by block, with threads, under the budget.
#pragma once

#include <string>
#include <vector>

#include "exec/context.h"
#include "io/output.h"
#include "io/safetensors.h"
#include "prog/program.h"

namespace qb {

// One safetensors file of the output.
struct PlannedFile {
  std::string name;                     // model.safetensors, model-00001-of-00002.safetensors
  std::vector<prog::Program> programs;  // in the order of their tensors
  Metadata metadata;                    // without checksums
  uint64_t bytes = 0;                   // of tensor data
};

// Splits programs into files of at most `max_shard` bytes of data (a program's outputs stay together; one that is larger gets a file of its own), in order.
std::vector<PlannedFile> plan_files(std::vector<prog::Program> programs, uint64_t max_shard);
// The documents' index for several files; empty for one.
std::string index_document(std::span<const PlannedFile> files);

struct RunReport {
  uint64_t bytes_in = 0, bytes_out = 0, bytes_copied_unchanged = 0;
  int64_t tensors = 0;
  std::vector<std::string> not_finite;  // outputs with NaN or infinities, as far as they were written now; of numbers that lie in two pieces nothing is said
};

// Writes every file that `out` does not have finished, but for those that other processes write (`others[f]`; empty: none), which the report leaves out. Each
// gets the metadata "quantbridge.checksums" (unless switched off): a JSON object tensor -> XXH3-64 of its bytes, 16 hex digits. The header is written last: a
// file without it cannot be mistaken for a whole one.
Result<RunReport> run_plan(std::span<const PlannedFile> files, Source&, OutputDirectory& out, bool checksums, Context&, const std::vector<bool>& others = {});

// Which of `ranks` processes writes each file: the largest first, to who has least. `finished[f]` costs nothing.
std::vector<int> share_files(std::span<const PlannedFile> files, const std::vector<bool>& finished, int ranks);

}  // namespace qb
