// What run, eval and bench share: how a model is loaded.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "bridge/runtime.h"
#include "cli/profile.h"
#include "cli/quantization_options.h"
#include "cli/report.h"

namespace qb::cli {

struct ModelOptions {
  std::string path, activations = "as-stored", kv_cache_dtype = "auto";
  std::vector<std::string> prefer, deny;
  std::string profile;
  bool reference = false;
  arch::Ranks ranks;
  int threads = 0;
  QuantizationOptions quantization;
  std::string memory_budget = "32MiB";
  CommonOptions common;
};

void add_model_options(CLI::App& app, ModelOptions& options, bool need_path = true);
// Errors: those of find_profile.
Result<RuntimeOptions> runtime_options(const ModelOptions& options);

// --quantization and its keys.
void add_run_quantization(CLI::App& app, QuantizationOptions& options);
// Does what they say to the modules of an opened checkpoint, with limits as rotate() changes them; problems go to the session's. False: an error has been
// reported, `code` is the exit code.
bool apply_quantization(std::string_view command, const QuantizationOptions& options, const CommonOptions& common, Session& session, Context& context,
                        int& code);

// --tp and --ep, for the commands that several processes run together.
void add_rank_options(CLI::App& app, ModelOptions& options);

// Opens a checkpoint to be run, with what --quantization does to it; sets what loading needs in the context. Nothing after an error, which has been reported:
// `code` is the exit code then.
std::optional<Session> open_model(std::string_view command, const ModelOptions& options, const std::string& path, Context& context, int& code);

// Opens and loads a model, with the other ranks where there are any; an error has been reported when it returns null, and `code` is the exit code.
std::unique_ptr<Runtime> load_model(std::string_view command, const ModelOptions& options, const std::string& path, int64_t context_tokens, Context& context,
                                    int& code);

}  // namespace qb::cli
