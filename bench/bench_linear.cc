// How near the linear kernels come to reading memory, as ratios to a plain read of as many bytes in the same second.
//
// For each kernel of this machine (or those whose names contain the first argument), M = 1 and threads = 2 by default: the weights of many layers, more than
// any cache holds, are multiplied one layer after the other; after each layer the bytes of another one are read, split over the threads in the same way, and
// nothing is computed. Printed are medians and spreads of the ratio over the passes, because absolute numbers change with the neighbours. With many tokens the
// products a second are what counts.
//   bench_linear [name part] [--m M] [--threads T] [--n N] [--k K]
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "host/arena.h"
#include "host/threads.h"
#include "kernel/kernel.h"

namespace qb {
namespace {

using kernel::Kernel;
using kernel::Problem;

double seconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Options {
  std::string name;
  int64_t m = 1, n = 4096, k = 4096;
  int threads = 2;
};

// The sum of all words, four lines at a time; what it returns keeps the reads alive.
__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t read_all(const std::byte* p, int64_t bytes) {
  uint64_t sums[32] = {};
  for (int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int64_t j = 0; j < 256; j += 64) __builtin_prefetch(p + i + j + 2048);  // as the kernels do
    for (int64_t j = 0; j < 32; ++j) {
      uint64_t word;
      std::memcpy(&word, p + i + 8 * j, 8);
      sums[j] |= word;
    }
  }
  uint64_t all = 0;
  for (uint64_t s : sums) all |= s;
  return all;
}

std::vector<std::string_view> schemes_of(const Kernel& k) {
  if (k.code_layout == ir::Layout::panel_bf16) return {"bf16"};
  if (k.code_layout == ir::Layout::panel_fp8) return {"fp8_channel", "fp8_128x128:fp8_g128"};
  if (k.code_layout == ir::Layout::panel_fp4) return {"nvfp4:nvfp4"};
  return {"bf16", "fp8_channel", "nvfp4:nvfp4"};
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

void measure(const Kernel& kernel, const Problem& p, const Options& o, host::ThreadPool& pool) {
  const ir::QuantType& type = p.scheme.weight;
  const int64_t rows = kernel.code_layout == ir::Layout::rows ? p.n : (p.n + 15) / 16;
  const auto code_bytes = rows * ir::panel_bytes(kernel.code_layout, p.k, bits(type.code));
  const int64_t groups = type.block.cols == 0 ? 1 : (p.k + type.block.cols - 1) / type.block.cols;
  const int64_t grid_rows = type.block.rows == 0 ? 1 : (p.n + type.block.rows - 1) / type.block.rows;
  const int64_t scale_bytes = type.plain() ? 0 : type.two_level() ? rows * ir::panel_bytes(kernel.scale_layout, groups, 8) : grid_rows * groups * 4;
  const int64_t each = (code_bytes + scale_bytes + 63) / 64 * 64;
  const int64_t layers = std::max<int64_t>(1, (int64_t{384} << 20) / each);
  host::Arena arena;
  auto memory = arena.take(static_cast<size_t>(layers * each));
  auto workspace = arena.take(kernel.workspace_bytes(p));
  if (!memory || !workspace) {
    fmt::print(stderr, "bench_linear: no memory\n");
    std::exit(1);
  }
  uint64_t state = 88172645463325252U;  // codes that are numbers: every byte below 0x78, and scales of them as floats near 1
  for (std::byte& b : *memory) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    b = static_cast<std::byte>(state & 0x3FU);
  }
  std::vector<kernel::Weight> weights;
  for (int64_t l = 0; l < layers; ++l) {
    std::byte* at = memory->data() + l * each;
    weights.push_back({at, type.plain() ? nullptr : at + code_bytes, 1, nullptr, 0.01F});
    if (type.plain() || type.two_level()) continue;
    const float one = 1;
    for (int64_t i = 0; i < scale_bytes; i += 4) std::memcpy(at + code_bytes + i, &one, 4);
  }
  std::vector<float> x(static_cast<size_t>(p.m * p.k), 0.5F), y(static_cast<size_t>(p.m * p.n));
  std::vector<double> ratio, gbs, read_gbs;
  std::atomic<uint64_t> sink{0};
  const auto bytes = static_cast<double>(layers * each);
  for (int pass = 0; pass < 9; ++pass) {
    double read = 0, run = 0;
    for (int64_t l = 0; l < layers; ++l) {
      const std::byte* other = memory->data() + (l + layers / 2) % layers * each;
      read += seconds([&] { pool.ranges(each, 256, [&](int64_t begin, int64_t end) { sink.fetch_or(read_all(other + begin, end - begin)); }); });
      run += seconds([&] {
        const kernel::RunArgs a{&p, &weights[static_cast<size_t>(l)], x.data(), y.data(), 0, p.n, workspace->data()};
        kernel.prepare(a);
        pool.ranges(p.n, 16, [&](int64_t begin, int64_t end) {
          kernel::RunArgs mine = a;
          mine.n_begin = begin;
          mine.n_end = end;
          kernel.run(mine);
        });
      });
    }
    ratio.push_back(read / run);
    gbs.push_back(bytes / run * 1e-9);
    read_gbs.push_back(bytes / read * 1e-9);
  }
  const auto [least, most] = std::minmax_element(ratio.begin(), ratio.end());
  const double products = static_cast<double>(p.m * p.n * p.k * layers) / (bytes / median(gbs) * 1e-9) * 1e-9;
  fmt::print("{:32} {:22} m={} threads={}  {:.2f} of a plain read [{:.2f}..{:.2f}]  {:.1f} GB/s against {:.1f}  {:.0f} G products/s\n", kernel.name,
             ir::to_string(p.scheme), p.m, o.threads, median(ratio), *least, *most, median(gbs), median(read_gbs), products);
  std::fflush(stdout);
}

}  // namespace
}  // namespace qb

int main(int argc, char** argv) {
  qb::Options o;
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
  for (const qb::kernel::Kernel* k : qb::kernel::kernels()) {
    if (k->name.find(o.name) == k->name.npos || !qb::host::covers(cpu.features, k->needs)) continue;
    for (const std::string_view text : qb::schemes_of(*k)) {
      const auto scheme = qb::ir::parse_scheme(text);
      if (!scheme) return 1;
      const qb::kernel::Problem p{o.m, o.n, o.k, *scheme};
      if (k->accepts(p).ok) qb::measure(*k, p, o, pool);
    }
  }
  return 0;
}
