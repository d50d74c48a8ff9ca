// How commands take a quantization configuration: a name, JSON, a file, and keys one by one.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "pass/quantize.h"

namespace qb::cli {

struct QuantizationOptions {
  std::string text;
  std::vector<std::string> settings;
  std::string numerics;
  bool given() const { return !text.empty() || !settings.empty(); }
};

// Adds `option` (--config, --quantization), --quantization-config and --numerics.
void add_quantization_options(CLI::App& app, QuantizationOptions& options, const char* option, const char* help, const char* type);

// `dialect`: whose numerics count where none are named. Errors: invalid_argument (what is wrong with the configuration), not_found, io.
Result<pass::QuantizeOptions> quantization(const QuantizationOptions& options, std::string_view dialect);

// The words of the command line without the program's name; "--quantization-config.KEY VALUE" as "--quantization-config KEY=VALUE".
std::vector<std::string> with_settings(int argc, char** argv);

}  // namespace qb::cli
