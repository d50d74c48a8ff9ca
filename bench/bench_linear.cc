// How near the linear kernels come to reading memory, as ratios to a plain read of as many bytes in the same second (bridge/bench.h says how).
//
// For each kernel of this machine (or those whose names contain the first argument), M = 1 and threads = 2 by default. With many tokens the products a second
// are what counts. `quantbridge bench` measures the kernels that would be chosen; this program any kernel at any size.
//   bench_linear [name part] [--m M] [--threads T] [--n N] [--k K]
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "bridge/bench.h"

namespace {

struct Options {
  std::string name;
  int64_t m = 1, n = 4096, k = 4096;
  int threads = 2;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto number = [&] { return i + 1 < argc ? std::atoll(argv[++i]) : 0; };
    if (word == "--m")
      o.m = number();
    else if (word == "--n")
      o.n = number();
    else if (word == "--k")
      o.k = number();
    else if (word == "--threads")
      o.threads = static_cast<int>(number());
    else
      o.name = word;
  }
  if (o.m < 1 || o.n < 1 || o.k < 1 || o.threads < 1) {
    fmt::print(stderr, "usage: bench_linear [name part] [--m M] [--threads T] [--n N] [--k K]\n");
    return 1;
  }
  qb::host::ThreadPool pool(o.threads);
  const qb::host::Cpu cpu = qb::host::this_cpu();
  const auto memory = qb::bench::WeightMemory::make(qb::bench::beyond_caches);
  if (!memory) return fmt::print(stderr, "bench_linear: {}\n", memory.error().what), 1;
  for (const qb::kernel::Kernel* k : qb::kernel::kernels()) {
    if (k->name.find(o.name) == k->name.npos || !qb::host::covers(cpu.features, k->needs)) continue;
    for (const std::string_view text : qb::bench::schemes_of(*k)) {
      const auto scheme = qb::ir::parse_scheme(text);
      if (!scheme) return 1;
      const qb::kernel::Problem p{o.m, o.n, o.k, *scheme};
      if (!k->accepts(p).ok) continue;
      const auto r = qb::bench::measure_kernel(*k, p, cpu, *memory, pool, 9);
      if (!r) return fmt::print(stderr, "bench_linear: {}\n", r.error().what), 1;
      fmt::print("{:32} {:22} m={} threads={}  {:.2f} of a plain read [{:.2f}..{:.2f}]  {:.1f} GB/s against {:.1f}", k->name, qb::ir::to_string(p.scheme), p.m,
                 o.threads, r->of_read.median, r->of_read.least, r->of_read.most, r->gbs.median, r->read_gbs.median);
      fmt::print("  {:.3f} of the peak [{:.3f}..{:.3f}]  {:.0f} G products/s against {:.0f}\n", r->of_peak.median, r->of_peak.least, r->of_peak.most,
                 r->products.median, r->peak.median);
      std::fflush(stdout);
    }
  }
  return 0;
}
