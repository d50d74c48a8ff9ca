// A conversion or quantization: planned whole before any data is read, then written.
#pragma once

#include <filesystem>
#include <map>
#include <optional>

#include "bridge/requantize.h"
#include "bridge/session.h"
#include "bridge/team.h"
#include "exec/run.h"
#include "pass/forms.h"
#include "pass/quantize.h"
#include "pass/repair.h"

namespace qb {

struct JobOptions {
  std::string to;
  std::optional<Elem> dense_dtype;
  bool stored = false;  // dense: the bare dequantized matrices
  std::optional<pass::QuantizeOptions> quantize;
  Repair repair = Repair::exact;
  pass::Forms forms;  // as_is: or taken apart, where the target has a place for nothing else
  uint64_t max_shard = 5'000'000'000;
  bool checksums = true;
  arch::Ranks ranks;  // more than one: the part of `rank` alone
  int64_t rank = 0;
};

// What the job takes apart before anything is quantized: what is asked for, and projections where the dialect of the source has names of its own for them.
arch::Joined taken_apart(const Session&, const pass::Forms&);

struct Job {
  Export plan;  // its programs have moved into files
  std::vector<PlannedFile> files;
  std::vector<pass::Repaired> repairs;
  Requantized requantized;
  std::vector<pass::Reformed> reformed;
  std::string calibration;  // the digest of what was made for it (pass::Overlay); empty: nothing
  uint64_t bytes_in = 0, bytes_out = 0;
  int64_t tensors = 0;
};

// The files of a source, by name, size and time: what a job that goes on later takes as a sign that they are the same.
std::string state_of(const Session&);

// What the plan's programs read.
inline Source& source_of(const Session& s, const Job& job) {
  return job.requantized.source != nullptr ? *job.requantized.source : *s.package.source;
}

// False: the checkpoint cannot be written that way; `diag` says why, nothing was written. `context` is used for the surveys that the plan depends on;
// whoever runs the plan takes the same one, since requantizing takes a part of its memory.
bool plan_job(const Session&, const JobOptions&, Context& context, Job&, Diagnostics& diag);

struct JobReport {
  RunReport run;
  std::vector<Problem> problems;  // output-not-finite: what was seen of the numbers while they passed
  OutputDirectory::Start start = OutputDirectory::Start::fresh;
  std::map<std::string, double> requantize_errors;  // by module
};
// Together: each process writes some of the files, the first one the rest and the whole; the report adds up what all have done. Errors are the same on all.
Result<JobReport> write_job(const Session&, const Job&, const std::filesystem::path& out, bool force, bool checksums, Context&, const Together& together = {});

}  // namespace qb
