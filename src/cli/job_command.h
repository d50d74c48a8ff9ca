// What convert and quantize share: budget and output options, running a job, and saying what happened.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/json_fwd.h"
#include "bridge/calibrate.h"
#include "cli/report.h"

namespace qb::cli {

struct JobCommandOptions {
  std::string in, out, to, budget = "512MiB", max_shard = "5GB";
  int threads = 0;
  bool dry_run = false, force = false, no_checksums = false;
  pass::Forms forms;
  CommonOptions common;
  std::shared_ptr<const Json> more = nullptr;  // keys that the command adds to the object of --json
};

void add_job_options(CLI::App& app, JobCommandOptions& options);

// Fills what every job needs. False: a usage error was printed.
bool parse_job_options(std::string_view command, const JobCommandOptions& options, JobOptions& job, Limits& limits);

// Opens IN, measures what the job needs on `calibration` (null: nothing; no file: our own text, where the job needs data), plans, writes OUT, reports. Returns
// the exit code.
int run_job(std::string_view command, const JobCommandOptions& options, JobOptions& job, Limits limits, Calibration* calibration = nullptr);

}  // namespace qb::cli
