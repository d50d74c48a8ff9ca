// The quantbridge program: parses the command line, runs one command, returns its exit code.
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <sstream>
#include <string_view>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/quantization_options.h"
#include "cli/ranks.h"
#include "cli/report.h"
#include "quantbridge/version.h"

namespace qb::cli {
namespace {

int run(int argc, char** argv) {
  CLI::App app{"QuantBridge: reads, verifies, converts and makes quantized LLM checkpoints", "quantbridge"};
  app.set_version_flag("--version", fmt::format("quantbridge {}", qb::version));
  app.require_subcommand(1);
  app.footer("quantbridge <command> --help shows examples. Exit codes: 0 done, 1 the input has problems, 2 wrong usage, 3 the outside world.");
  std::vector<const Command*> all(commands().begin(), commands().end());
  std::sort(all.begin(), all.end(), [](const Command* a, const Command* b) { return a->rank < b->rank; });
  struct Run {
    const Command* command;
    CLI::App* app;
    std::function<int()> run;
  };
  std::vector<Run> runs;
  for (const Command* c : all) {
    CLI::App* sub = app.add_subcommand(std::string(c->name), std::string(c->summary));
    sub->footer(std::string(c->examples));
    runs.push_back({c, sub, c->setup(*sub)});
  }
  try {
    std::vector<std::string> words = with_settings(argc, argv);
    std::reverse(words.begin(), words.end());  // as the parser takes them
    app.parse(std::move(words));
  } catch (const CLI::ParseError& e) {
    std::ostringstream out, err;
    const int code = app.exit(e, out, err);
    print_out(out.str());
    print_err(err.str());
    return code == 0 ? exit_done : exit_usage;
  }
  for (const Run& r : runs) {
    if (!r.app->parsed()) continue;
    if (ranks() != nullptr && !r.command->together) {
      print_err(fmt::format("quantbridge {}: {} processes were started, and this is work for one\n", r.command->name, ranks()->size()));
      return exit_usage;
    }
    const int code = r.run();
    std::fflush(stdout);
    // A signal that came too late to stop anything: the output is there, and the exit code says so.
    return interrupted_by() != 0 && code != exit_done ? 128 + interrupted_by() : code;
  }
  return exit_usage;
}

// On any thread. Nothing half done looks whole: outputs get their names last, and a rerun goes on from what is there.
[[noreturn]] void end_without_memory() {
  try {
    if (const std::exception_ptr thrown = std::current_exception()) std::rethrow_exception(thrown);
  } catch (const std::bad_alloc&) {
    constexpr std::string_view what =
        "quantbridge: out of memory: the system gave no more; a smaller --memory-budget or fewer --threads need less, and ulimit -d, ulimit -v may allow "
        "more\n";
    (void)!::write(STDERR_FILENO, what.data(), what.size());
    ::_exit(exit_environment);
  } catch (...) {
  }
  std::abort();
}

}  // namespace
}  // namespace qb::cli

int main(int argc, char** argv) {
  using namespace qb::cli;
  std::set_terminate(end_without_memory);
  // What is large goes back to the system when it is freed. Otherwise the C library learns to keep it, in pieces that the next large block does not fit into.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write
  catch_interrupts();
  if (const qb::Result<void> joined = join_ranks(); !joined) {
    print_err(fmt::format("quantbridge: {}\n", joined.error().what));
    return exit_usage;
  }
  const int code = run(argc, argv);
  leave_ranks();
  return code;
}
