#include "bridge/tune.h"

#include <algorithm>
#include <set>

namespace qb::bench {
namespace {

constexpr double turn_seconds = 0.004, hopeless = 8, beaten = 4;
constexpr int64_t tokens[] = {1, 2, 4, 8, 16, 64, 512};
struct Size {
  int64_t n, k;
};
constexpr Size sizes[] = {{576, 576}, {2048, 2048}, {8192, 2048}};

// Those that may be the fastest, the cheapest by the model first.
std::vector<const kernel::Kernel*> contenders(const kernel::Problem& p, const host::Cpu& cpu) {
  std::vector<std::pair<double, const kernel::Kernel*>> legal;
  for (const kernel::Kernel* k : kernel::kernels())
    if (k->code_layout != ir::Layout::rows && host::covers(cpu.features, k->needs) && k->accepts(p).ok) legal.emplace_back(k->cost_ns(p, cpu), k);
  std::sort(legal.begin(), legal.end(), [](const auto& a, const auto& b) { return a.first != b.first ? a.first < b.first : a.second->name < b.second->name; });
  std::vector<const kernel::Kernel*> out;
  for (const auto& [cost, k] : legal)
    if (cost <= hopeless * legal.front().first) out.push_back(k);
  return out;
}

Result<Race> race(const kernel::Problem& p, const std::vector<const kernel::Kernel*>& kernels, const WeightMemory& memory, host::ThreadPool& pool,
                  int repeats) {
  struct Runner {
    BenchLayers layers;
    std::vector<double> ns;
    size_t next = 0;
    bool out = false;
    double turn(host::ThreadPool& pool) {
      double spent = 0;
      int calls = 0;
      for (; calls == 0 || spent < turn_seconds; ++calls) spent += layers.run(next++, pool);
      return spent / calls * 1e9;
    }
  };
  std::vector<Runner> runners;
  for (const kernel::Kernel* k : kernels) {
    QB_ASSIGN(BenchLayers layers, BenchLayers::make(*k, p, memory));
    runners.push_back({.layers = std::move(layers), .ns = {}});
  }
  double best = 0;
  for (int i = 0; i < repeats; ++i)
    for (Runner& r : runners) {
      if (r.out) continue;
      if (i == 0) r.layers.run(r.next++, pool);  // pages, caches of the workspace
      r.ns.push_back(r.turn(pool));
      best = best == 0 ? r.ns.back() : std::min(best, r.ns.back());
      r.out = r.ns.back() > beaten * best;
    }
  Race out{.problem = p, .runners = {}};
  for (size_t i = 0; i < runners.size(); ++i) out.runners.push_back({kernels[i], spread_of(std::move(runners[i].ns))});
  return out;
}

}  // namespace

std::vector<kernel::Problem> tuning_grid() {
  std::set<std::string_view> schemes;
  for (const kernel::Kernel* k : kernel::kernels())
    for (const std::string_view s : schemes_of(*k)) schemes.insert(s);
  std::vector<kernel::Problem> all;
  for (const std::string_view text : schemes)
    if (const Result<ir::Scheme> scheme = ir::parse_scheme(text); scheme)
      for (const Size& s : sizes)
        for (const int64_t m : tokens) all.push_back({.m = m, .n = s.n, .k = s.k, .scheme = *scheme});
  return all;
}

double Race::regret() const {
  double best = runners.front().ns.median;
  for (const Runner& r : runners) best = std::min(best, r.ns.median);
  return runners.front().ns.median / best - 1;
}

Result<Tuning> tune(const host::Cpu& cpu, const WeightMemory& memory, host::ThreadPool& pool, const TuneOptions& o) {
  Tuning out{.timings = {.features = host::to_string(cpu.features), .cores = cpu.cores, .threads = pool.size(), .all = {}}, .races = {}};
  const std::vector<kernel::Problem>& problems = o.problems;
  for (size_t i = 0; i < problems.size(); ++i) {
    if (o.stop && o.stop()) return Error{Errc::cancelled, "interrupted"};
    if (o.progress) o.progress(i, problems.size());
    const std::vector<const kernel::Kernel*> kernels = contenders(problems[i], cpu);
    if (kernels.empty()) continue;
    QB_ASSIGN(Race r, race(problems[i], kernels, memory, pool, o.repeats));
    for (const Race::Runner& each : r.runners)
      out.timings.all.push_back({std::string(each.kernel->name), ir::to_string(r.problem.scheme), r.problem.m, r.problem.n, r.problem.k, each.ns.median});
    out.races.push_back(std::move(r));
  }
  if (o.progress) o.progress(problems.size(), problems.size());
  return out;
}

}  // namespace qb::bench
