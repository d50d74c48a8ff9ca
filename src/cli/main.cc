// The quantbridge program: parses the command line, runs one command, returns its exit code.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/quantization_options.h"
#include "quantbridge/version.h"

int main(int argc, char** argv) {
  using namespace qb::cli;
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of write, not a signal
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write
  catch_interrupts();
  CLI::App app{"QuantBridge: reads, verifies, converts and makes quantized LLM checkpoints", "quantbridge"};
  app.set_version_flag("--version", fmt::format("quantbridge {}", qb::version));
  app.require_subcommand(1);
  app.footer("quantbridge <command> --help shows examples. Exit codes: 0 done, 1 the input has problems, 2 wrong usage, 3 the outside world.");
  std::vector<const Command*> all(commands().begin(), commands().end());
  std::sort(all.begin(), all.end(), [](const Command* a, const Command* b) { return a->rank < b->rank; });
  std::vector<std::pair<CLI::App*, std::function<int()>>> runs;
  for (const Command* c : all) {
    CLI::App* sub = app.add_subcommand(std::string(c->name), std::string(c->summary));
    sub->footer(std::string(c->examples));
    runs.emplace_back(sub, c->setup(*sub));
  }
  try {
    std::vector<std::string> words = with_settings(argc, argv);
    std::reverse(words.begin(), words.end());  // as the parser takes them
    app.parse(std::move(words));
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? exit_done : exit_usage;
  }
  for (const auto& [sub, run] : runs) {
    if (!sub->parsed()) continue;
    const int code = run();
    std::fflush(stdout);
    // A signal that came too late to stop anything: the output is there, and the exit code says so.
    return interrupted_by() != 0 && code != exit_done ? 128 + interrupted_by() : code;
  }
  return exit_usage;
}
