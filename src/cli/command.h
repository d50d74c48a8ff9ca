// A command of the quantbridge program: one file each, found through the manifest.
#pragma once

#include <CLI/CLI.hpp>
#include <span>
#include <string_view>

namespace qb::cli {

// Exit codes (docs/cli.md).
inline constexpr int exit_done = 0, exit_problems = 1, exit_usage = 2, exit_environment = 3;

struct Command {
  std::string_view name, summary, examples;
  int rank;  // order in --help
  // Adds options to `app`; the returned function runs the command once they are parsed.
  std::function<int()> (*setup)(CLI::App& app);
  bool together = false;  // several processes can do it as one
};

std::span<const Command* const> commands();  // the generated manifest

}  // namespace qb::cli

// Registers a command: QB_COMMAND(inspect) = {...}.
#define QB_COMMAND(stem)               \
  extern const Command command_##stem; \
  const Command command_##stem
