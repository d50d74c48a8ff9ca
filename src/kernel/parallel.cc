#include "kernel/parallel.h"

#include <algorithm>

namespace qb::kernel {
namespace {

// Rows of the weight that a thread takes at a time. Kernels for many tokens hold up to four panels in registers. Where these blocks are too few to come out
// even, each thread takes its share at once, a panel more or less: the last block of a share is smaller, but nobody waits for one that has a block more.
int64_t rows_at_once(int64_t m, int64_t n, int threads) {
  constexpr int64_t few = 8, together = 4 * ir::panel_rows, enough = 8;
  if (m <= few) return ir::panel_rows;
  if (n >= enough * together * threads) return together;
  return (n + ir::panel_rows * threads - 1) / (ir::panel_rows * threads) * ir::panel_rows;
}

}  // namespace

void prepare_on(const Kernel& kernel, const RunArgs& all, host::ThreadPool& pool) {
  const int64_t m = all.problem->m;
  if (m * all.problem->k < host::ThreadPool::worthwhile) return kernel.prepare(all, 0, m);
  // As many parts as threads: each takes the range of the whole tensor for itself, where the scheme has one scale for it.
  const int64_t tokens = (m + pool.size() - 1) / pool.size();
  pool.ranges(m, tokens, [&](int64_t begin, int64_t end) { kernel.prepare(all, begin, end); });
}

void for_parts(std::span<const RunArgs> weights, host::ThreadPool& pool, const std::function<void(const RunArgs&)>& run) {
  const auto panels_of = [](const RunArgs& w) { return (w.problem->n + ir::panel_rows - 1) / ir::panel_rows; };
  int64_t panels = 0;
  for (const RunArgs& w : weights) panels += panels_of(w);
  const struct {
    std::span<const RunArgs> weights;
    const std::function<void(const RunArgs&)>& run;
  } call{weights, run};
  const int64_t rows = rows_at_once(weights[0].problem->m, panels * ir::panel_rows, pool.size());
  pool.ranges(panels, rows / ir::panel_rows, [&call, &panels_of](int64_t begin, int64_t end) {
    for (const RunArgs& w : call.weights) {
      const int64_t here = panels_of(w);
      if (begin < here && end > 0) {
        RunArgs part = w;
        part.n_begin = std::max(begin, int64_t{0}) * ir::panel_rows;
        part.n_end = std::min(end * ir::panel_rows, w.problem->n);
        call.run(part);
      }
      begin -= here;
      end -= here;
    }
  });
}

}  // namespace qb::kernel
