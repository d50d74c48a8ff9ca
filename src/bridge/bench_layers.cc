#include "bridge/bench_layers.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "host/host.h"
#include "kernel/parallel.h"

namespace qb::bench {
namespace {

struct Geometry {
  int64_t codes = 0, scales = 0, zeros = 0, each = 0;  // bytes of a layer, rounded up to lines
  int64_t read() const { return codes + scales + zeros; }
};
Geometry geometry_of(const kernel::Kernel& kernel, const kernel::Problem& p) {
  const ir::QuantType& type = p.scheme.weight;
  const int64_t panels = (p.n + ir::panel_rows - 1) / ir::panel_rows;
  const bool rows = kernel.code_layout == ir::Layout::rows;
  const int64_t groups = type.block.cols == 0 ? 1 : (p.k + type.block.cols - 1) / type.block.cols;
  const int64_t grid_rows = type.block.rows == 0 ? 1 : (p.n + type.block.rows - 1) / type.block.rows;
  Geometry g;
  g.codes = (rows ? p.n : panels) * ir::panel_bytes(kernel.code_layout, kernel::panel_columns(kernel.code_layout, type, p.k), kernel::row_bits(type));
  if (type.plain()) {
  } else if (kernel::scales_in_panels(kernel.scale_layout, type)) {
    g.scales = panels * ir::panel_bytes(ir::Layout::panel_scale, groups, bits(kernel::panel_scale_elem(type)));
    if (type.zero != ir::Zero::none) g.zeros = panels * ir::panel_bytes(ir::Layout::panel_scale, groups, 8);
  } else {
    g.scales = grid_rows * groups * bits(kernel::grid_elem(type)) / 8;
    if (type.zero != ir::Zero::none) g.zeros = grid_rows * groups;
  }
  g.each = (g.read() + 63) / 64 * 64;
  return g;
}

// Layers one behind the other in the memory; float32 scales become 1.
std::vector<kernel::Weight> lay_out(const kernel::Kernel& kernel, const kernel::Problem& p, const Geometry& g, std::span<std::byte> memory) {
  std::vector<kernel::Weight> weights;
  const ir::QuantType& type = p.scheme.weight;
  const Elem elem = kernel::scales_in_panels(kernel.scale_layout, type) ? kernel::panel_scale_elem(type) : kernel::grid_elem(type);
  for (size_t at = 0; at + static_cast<size_t>(g.each) <= memory.size(); at += static_cast<size_t>(g.each)) {
    std::byte* const codes = memory.data() + at;
    std::byte* const scales = codes + g.codes;
    weights.push_back({codes, g.scales == 0 ? nullptr : scales, 1, nullptr, 0.01F, g.zeros == 0 ? nullptr : scales + g.scales});
    const float one = 1;
    if (elem == Elem::f32)
      for (int64_t i = 0; i < g.scales; i += 4) std::memcpy(scales + i, &one, sizeof one);
  }
  return weights;
}

}  // namespace

double seconds(const host::ThreadPool& pool, const std::function<void()>& f) {
  if (pool.size() == 1) {
    const double begin = host::thread_seconds();
    f();
    return host::thread_seconds() - begin;
  }
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Result<WeightMemory> WeightMemory::make(size_t bytes) {
  WeightMemory m;
  m.arena_ = std::make_unique<host::Arena>();
  QB_ASSIGN(m.bytes_, m.arena_->take(bytes));
  // Bytes from 0x30 to 0x3F are numbers of every format, small ones but none subnormal, also as scales of each other: some processors take a hundred times as
  // long for those.
  uint64_t state = 88172645463325252U;
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const uint64_t word = (state & 0x0F0F0F0F0F0F0F0FU) | 0x3030303030303030U;
    std::memcpy(m.bytes_.data() + i, &word, 8);
  }
  return m;
}

Result<BenchLayers> BenchLayers::make(const kernel::Kernel& kernel, const kernel::Problem& p, const WeightMemory& memory) {
  const Geometry g = geometry_of(kernel, p);
  BenchLayers l;
  l.kernel_ = &kernel;
  l.problem_ = p;
  l.memory_ = memory.bytes();
  l.read_ = g.read();
  l.each_ = g.each;
  l.weights_ = lay_out(kernel, p, g, memory.bytes());
  if (l.weights_.empty()) return Error{Errc::out_of_memory, fmt::format("one weight of {} does not fit in {} bytes", to_string(p), memory.bytes().size())};
  l.arena_ = std::make_unique<host::Arena>();
  QB_ASSIGN(l.workspace_, l.arena_->take(kernel.workspace_bytes(p)));
  l.x_.assign(static_cast<size_t>(p.m * p.k), 0.5F);
  l.y_.resize(static_cast<size_t>(p.m * p.n));
  return l;
}

double BenchLayers::run(size_t i, host::ThreadPool& pool) {
  return seconds(pool, [&] {
    const kernel::RunArgs a{&problem_, &weights_[i % weights_.size()], x_.data(), y_.data(), 0, problem_.n, workspace_.data()};
    kernel::prepare_on(*kernel_, a, pool);
    kernel::for_parts({&a, 1}, pool, kernel_->run);
  });
}

std::span<std::byte> BenchLayers::far_from(size_t i) const {
  return memory_.subspan((i + weights_.size() / 2) % weights_.size() * static_cast<size_t>(each_)).first(static_cast<size_t>(read_));
}

}  // namespace qb::bench
