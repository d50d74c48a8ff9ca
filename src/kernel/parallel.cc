#include "kernel/parallel.h"

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

void for_parts(const RunArgs& all, host::ThreadPool& pool, const std::function<void(const RunArgs&)>& run) {
  const struct {
    const RunArgs& all;
    const std::function<void(const RunArgs&)>& run;
  } call{all, run};
  pool.ranges(all.problem->n, rows_at_once(all.problem->m, all.problem->n, pool.size()), [&call](int64_t begin, int64_t end) {
    RunArgs part = call.all;
    part.n_begin = begin;
    part.n_end = end;
    call.run(part);
  });
}

}  // namespace qb::kernel
