// quantize --auto: its options, what it says, and the files that it leaves.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bridge/mix.h"
#include "cli/job_command.h"

namespace qb::cli {

struct MixingOptions {
  bool on = false;
  double bits = 0, divergence = 0;
  std::string size, directory, sensitivity = "kl";
  std::vector<std::string> schemes;
  uint64_t tokens = 2048;
  size_t points = 6;
  bool limited() const { return bits > 0 || divergence > 0 || !size.empty(); }
};

void add_mixing_options(CLI::App& app, MixingOptions& options);

// What --auto finds for the job: a configuration, after it has said and written what there is to say. Nothing after an error, which has been reported: `code`
// is the exit code. `job` says what is left out and the KV cache; keys are added to options.more.
std::optional<std::string> mix(const MixingOptions& mixing, JobCommandOptions& options, const std::string& numerics, const Calibration& calibration,
                               const JobOptions& job, const Limits& limits, int& code);

}  // namespace qb::cli
