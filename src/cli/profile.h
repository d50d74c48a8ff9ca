// The profile of this machine's kernels (oracle/profile.h): the file, the option, and what makes it.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "cli/report.h"
#include "host/cpu.h"
#include "oracle/profile.h"

namespace qb::cli {

// --profile FILE|none, and QUANTBRIDGE_PROFILE in its place.
void add_profile_option(CLI::App& app, std::string& profile);

// The profile that the option names, or without one that of quantbridge/profile.json in the user's cache directory, where there is one of this processor; null
// where the model is to be gone by. Errors: the file cannot be read, is none, or (named) was made on another processor.
Result<std::shared_ptr<const oracle::Profile>> find_profile(const std::string& option, const host::Cpu& cpu);

// bench --tune: measures, says how good the model is, and writes the file. Returns the exit code.
int tune(const std::string& profile, int threads, int repeats, const CommonOptions& common);

}  // namespace qb::cli
