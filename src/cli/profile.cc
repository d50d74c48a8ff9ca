#include "cli/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/json.h"
#include "bridge/tune.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "io/posix_file.h"

namespace qb::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view none = "none";
constexpr double near = 0.1;  // of the fastest
constexpr size_t shown = 5;

// Empty without a home.
fs::path usual_file() {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return fs::path(value == nullptr ? "" : value);
  };
  fs::path cache = variable("XDG_CACHE_HOME");
  if (cache.empty() && !variable("HOME").empty()) cache = variable("HOME") / ".cache";
  return cache.empty() ? cache : cache / "quantbridge" / "profile.json";
}

// The value that this part of them does not exceed.
double quantile(const std::vector<double>& sorted, double part) {
  return sorted.empty() ? 0 : sorted[std::min(sorted.size() - 1, static_cast<size_t>(part * static_cast<double>(sorted.size())))];
}

const bench::Race::Runner& fastest(const bench::Race& r) {
  return *std::min_element(r.runners.begin(), r.runners.end(), [](const auto& a, const auto& b) { return a.ns.median < b.ns.median; });
}

}  // namespace

void add_profile_option(CLI::App& app, std::string& profile) {
  app.add_option("--profile", profile,
                 "what bench --tune measured (default: quantbridge/profile.json in the user's cache, if it is of this processor); none: choose by the model")
      ->envname("QUANTBRIDGE_PROFILE")
      ->type_name("FILE|none");
}

Result<std::shared_ptr<const oracle::Profile>> find_profile(const std::string& option, const host::Cpu& cpu) {
  std::shared_ptr<const oracle::Profile> nothing;
  const fs::path file = option.empty() ? usual_file() : fs::path(option);
  std::error_code ec;
  if (option == none || file.empty() || (option.empty() && !fs::exists(file, ec))) return nothing;
  QB_ASSIGN(const std::string text, read_file(file));
  Result<oracle::Timings> timings = oracle::read_timings(text);
  if (!timings) return Error{timings.error().code, fmt::format("{}: {}; bench --tune makes it anew", escape(file.native()), timings.error().what)};
  auto profile = std::make_shared<const oracle::Profile>(std::move(*timings), kernel::kernels(), cpu);
  if (profile->fits(cpu)) return std::shared_ptr<const oracle::Profile>(std::move(profile));
  if (option.empty()) return nothing;
  return Error{Errc::invalid_argument, fmt::format("{} was made on another processor than {} ({}, {} processors); bench --tune makes one here",
                                                   escape(file.native()), cpu.name, host::to_string(cpu.features), cpu.cores)};
}

int tune(const std::string& profile, int threads, int repeats, const CommonOptions& common) {
  const fs::path file = profile.empty() ? usual_file() : fs::path(profile);
  if (file.empty() || profile == none) {
    print_err("quantbridge bench: --tune writes a file: name it with --profile FILE\n");
    return exit_usage;
  }
  const host::Cpu cpu = host::this_cpu();
  const auto memory = bench::WeightMemory::make(bench::beyond_caches);
  if (!memory) return fail("bench", memory.error(), common);
  host::ThreadPool pool(threads > 0 ? threads : cpu.cores);
  const auto bar = progress_bar("tune", common, [](uint64_t count) { return fmt::format("{} problems", count); });
  const auto tuning = bench::tune(cpu, *memory, pool,
                                  {.repeats = repeats,
                                   .stop = [] { return interrupted().load(); },
                                   .progress =
                                       [&](size_t done, size_t all) {
                                         if (bar) bar({.done = done, .total = all});
                                       }});
  if (!tuning) return fail("bench", tuning.error(), common);
  std::error_code ec;
  if (file.has_parent_path()) fs::create_directories(file.parent_path(), ec);  // where that fails, the file says so
  if (const Result<void> written = replace_file(file, oracle::to_json_text(tuning->timings)); !written) return fail("bench", written.error(), common);

  std::vector<const bench::Race*> races;
  for (const bench::Race& r : tuning->races)
    if (r.runners.size() > 1) races.push_back(&r);
  std::sort(races.begin(), races.end(), [](const bench::Race* a, const bench::Race* b) { return a->regret() > b->regret(); });
  std::vector<double> regrets;
  for (auto it = races.rbegin(); it != races.rend(); ++it) regrets.push_back((*it)->regret());
  const auto good = std::count_if(regrets.begin(), regrets.end(), [](double r) { return r <= near; });
  const double part = regrets.empty() ? 1 : static_cast<double>(good) / static_cast<double>(regrets.size());
  if (common.json) {
    Json far = Json::array();
    for (const bench::Race* r : races) {
      if (r->regret() <= near) break;
      Json runners = Json::object();
      for (const bench::Race::Runner& each : r->runners)
        runners[std::string(each.kernel->name)] = {{"ns", each.ns.median}, {"min", each.ns.least}, {"max", each.ns.most}};
      far.push_back({{"problem", to_string(r->problem)},
                     {"chosen", r->runners.front().kernel->name},
                     {"fastest", fastest(*r).kernel->name},
                     {"regret", r->regret()},
                     {"runners", std::move(runners)}});
    }
    Json j = envelope("bench", true, {});
    j["tune"] = {{"file", file.native()},
                 {"threads", pool.size()},
                 {"timings", tuning->timings.all.size()},
                 {"problems", regrets.size()},
                 {"within_10_percent", part},
                 {"regret",
                  {{"median", quantile(regrets, 0.5)},
                   {"p90", quantile(regrets, 0.9)},
                   {"p95", quantile(regrets, 0.95)},
                   {"p99", quantile(regrets, 0.99)},
                   {"max", quantile(regrets, 1)}}},
                 {"far", std::move(far)}};
    print_json(j);
    return exit_done;
  }
  print_out(fmt::format("{} timings of {} problems with {} thread{}, in {}\n", tuning->timings.all.size(), tuning->races.size(), pool.size(),
                        pool.size() == 1 ? "" : "s", escape(file.native())));
  print_out(
      fmt::format("Of {} problems that several kernels run, the model chooses the fastest, or one within {:.0f} % of it, in {:.1f} %.\n"
                  "What its choice takes longer than the fastest: half of them at most {:.1f} %, 90 % {:.1f} %, 95 % {:.1f} %, 99 % {:.1f} %, all {:.1f} %\n",
                  regrets.size(), 100 * near, 100 * part, 100 * quantile(regrets, 0.5), 100 * quantile(regrets, 0.9), 100 * quantile(regrets, 0.95),
                  100 * quantile(regrets, 0.99), 100 * quantile(regrets, 1)));
  for (size_t i = 0; i < std::min(shown, races.size()) && races[i]->regret() > near; ++i) {
    const bench::Race& r = *races[i];
    print_out(fmt::format("  {}: {} takes {:.0f} % longer than {}\n", to_string(r.problem), r.runners.front().kernel->name, 100 * r.regret(),
                          fastest(r).kernel->name));
  }
  return exit_done;
}

}  // namespace qb::cli
