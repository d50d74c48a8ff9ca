#include "bridge/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <numeric>

#include "host/host.h"
#include "host/probe.h"
#include "kernel/inputs.h"

namespace qb::bench {
namespace {

constexpr double piece_seconds = 0.02;  // of a kernel between two probes
constexpr double prefill_seconds = 10;  // after which no prefill is repeated
constexpr int most_prefills = 7;
constexpr int64_t probe_rounds = 200000;  // of multiply-adds: a millisecond or so

std::atomic<uint64_t> sink;

// Seconds for reading `parts`, one behind the other, with all threads; in one go, so that nothing but reading is measured.
double read_seconds(std::span<const std::span<std::byte>> parts, Isa isa, host::ThreadPool& pool) {
  int64_t all = 0;
  for (const std::span<std::byte> part : parts) all += static_cast<int64_t>(part.size());
  return seconds(pool, [&] {
    pool.ranges(all, 4096, [&](int64_t begin, int64_t end) {
      uint64_t seen = 0;
      int64_t at = 0;
      for (const std::span<std::byte> part : parts) {
        const auto size = static_cast<int64_t>(part.size());
        const int64_t first = std::max(begin - at, int64_t{0}), last = std::min(end - at, size);
        if (first < last) seen |= host::read_bytes(part.subspan(static_cast<size_t>(first), static_cast<size_t>(last - first)), isa);
        at += size;
      }
      sink.fetch_or(seen);
    });
  });
}

// G multiply-adds a second of all threads.
double multiply_rate(double (*multiply)(host::Feature, int64_t), host::Feature features, host::ThreadPool& pool, int64_t rounds = probe_rounds) {
  double each = 0;
  const double s = seconds(pool, [&] {
    pool.run([&](int i) {
      const double n = multiply(features, rounds);
      if (i == 0) each = n;
    });
  });
  return each * pool.size() / s * 1e-9;
}

auto multiply_in(kernel::Products products) {
  return products == kernel::Products::int8 ? host::multiply_int8 : products == kernel::Products::bf16 ? host::multiply_bf16 : host::multiply_f32;
}

// The sequences of a model's measurement: what a forward needs of them, for prompts and for steps.
struct Sequences {
  Sequences(const Workload& o, int64_t vocab) : batch(o.batch), blocks(engine::blocks_for(o.prompt + o.tokens)) {
    for (int64_t s = 0; s < batch; ++s) {
      std::vector<int32_t> own(static_cast<size_t>(blocks));
      std::iota(own.begin(), own.end(), static_cast<int32_t>(s * blocks));
      owned.push_back(std::move(own));
    }
    for (const auto& own : owned) table.emplace_back(own);
    // Any tokens will do; the same in every run.
    uint32_t state = 1;
    ids.resize(static_cast<size_t>(batch * o.prompt));
    for (int32_t& id : ids) id = static_cast<int32_t>((state = state * 1664525U + 1013904223U) / 65536U % static_cast<uint32_t>(vocab));
  }
  // `count` tokens of each sequence from position `first` on.
  model::Batch at(int64_t first, int64_t count) {
    positions.resize(static_cast<size_t>(batch * count));
    offsets.resize(static_cast<size_t>(batch) + 1);
    for (int64_t s = 0; s < batch; ++s) {
      std::iota(positions.begin() + s * count, positions.begin() + (s + 1) * count, static_cast<int32_t>(first));
      offsets[static_cast<size_t>(s) + 1] = static_cast<int32_t>((s + 1) * count);
    }
    return {.ids = std::span(ids).first(positions.size()), .positions = positions, .offsets = offsets, .table = table};
  }
  int64_t batch, blocks;
  std::vector<std::vector<int32_t>> owned;
  std::vector<std::span<const int32_t>> table;
  std::vector<int32_t> ids, positions, offsets;
};

}  // namespace

Spread spread_of(std::vector<double> v) {
  if (v.empty()) return {};
  std::sort(v.begin(), v.end());
  return {v[v.size() / 2], v.front(), v.back(), static_cast<int>(v.size())};
}

Peaks measure_peaks(const host::Cpu& cpu, const WeightMemory& memory, host::ThreadPool& pool, int repeats) {
  const Isa isa = host::detect_isa();
  std::vector<double> read, f32, bf16, int8, clock;
  const std::span<std::byte> parts[] = {memory.bytes()};
  for (int i = 0; i < repeats; ++i) {
    read.push_back(static_cast<double>(memory.bytes().size()) / read_seconds(parts, isa, pool) * 1e-9);
    f32.push_back(multiply_rate(host::multiply_f32, cpu.features, pool));
    bf16.push_back(multiply_rate(host::multiply_bf16, cpu.features, pool));
    int8.push_back(multiply_rate(host::multiply_int8, cpu.features, pool));
    clock.push_back(multiply_rate(host::add_in_turn, cpu.features, pool) / pool.size());
  }
  return {spread_of(std::move(read)), spread_of(std::move(f32)), spread_of(std::move(bf16)), spread_of(std::move(int8)), spread_of(std::move(clock))};
}

std::vector<std::string_view> schemes_of(const kernel::Kernel& k) {
  if (k.code_layout == ir::Layout::panel_bf16) return {"bf16"};
  if (k.code_layout == ir::Layout::panel_plain) return {"f16", "f32"};
  if (k.code_layout == ir::Layout::panel_fp8) return {"fp8_channel", "fp8_128x128:fp8_g128", "mxfp8"};
  if (k.code_layout == ir::Layout::panel_fp4) return {"nvfp4", "nvfp4:nvfp4", "nvfp4:int8_token", "mxfp4", "mxfp4:int8_token"};
  if (k.code_layout == ir::Layout::panel_int4) return {"int4_g128", "int4_g128_asym", "int4_g32", "int4_g128:int8_token"};
  if (k.code_layout == ir::Layout::panel_int8) return {"int8_channel", "int8_g128", "int8_channel:int8_token", "int8_channel:int8_token_asym"};
  return {"bf16", "fp8_channel", "nvfp4", "int4_g128"};
}

Result<KernelRates> measure_kernel(const kernel::Kernel& kernel, const kernel::Problem& p, const host::Cpu& cpu, const WeightMemory& memory,
                                   host::ThreadPool& pool, int repeats) {
  QB_ASSIGN(BenchLayers layers, BenchLayers::make(kernel, p, memory));
  const Isa isa = host::detect_isa();
  const auto bytes = static_cast<double>(layers.bytes()), products = static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  const auto in_piece = static_cast<size_t>(std::max(1.0, piece_seconds / std::max(layers.run(0, pool), 1e-6)));
  const auto multiply = multiply_in(kernel.products);
  std::vector<double> gbs, read_gbs, of_read, rate, peak, of_peak;
  for (size_t next = 1; gbs.size() < static_cast<size_t>(repeats);) {
    double run = 0, read = 0;
    for (size_t i = 0; i < in_piece; ++i, ++next) {
      run += layers.run(next, pool);
      const std::span<std::byte> other[] = {layers.far_from(next)};
      read += read_seconds(other, isa, pool);
    }
    const double n = static_cast<double>(in_piece), most = multiply_rate(multiply, cpu.features, pool);
    gbs.push_back(n * bytes / run * 1e-9);
    read_gbs.push_back(n * bytes / read * 1e-9);
    of_read.push_back(read / run);
    rate.push_back(n * products / run * 1e-9);
    peak.push_back(most);
    of_peak.push_back(rate.back() / most);
  }
  return KernelRates{spread_of(std::move(gbs)),  spread_of(std::move(read_gbs)), spread_of(std::move(of_read)),
                     spread_of(std::move(rate)), spread_of(std::move(peak)),     spread_of(std::move(of_peak))};
}

Result<ModelRates> measure_model(Runtime& r, const host::Cpu& cpu, const Workload& o) {
  model::Model& model = *r.model;
  if (o.prompt + o.tokens > model.max_positions())
    return Error{Errc::invalid_argument,
                 fmt::format("{} prompt tokens and {} new ones: the model has {} positions; ask for fewer", o.prompt, o.tokens, model.max_positions())};
  std::vector<std::span<std::byte>> parts;
  ModelRates out;
  const auto prompt = static_cast<double>(o.prompt), batch = static_cast<double>(o.batch);
  std::map<kernel::Products, double> products_in;
  double prefill_products = 0;
  const auto linears = model.linears();
  for (const auto& [name, linear] : linears) {
    for (const std::span<std::byte> part : linear->parts()) {
      parts.push_back(part);
      out.weight_bytes_per_step += part.size();
    }
    const bool head = linear == linears.back().second;  // runs for the last token of each prompt alone
    const double tokens = batch * (head ? 1 : prompt), products = tokens * static_cast<double>(linear->n()) * static_cast<double>(linear->k());
    products_in[linear->plan().kernel_for(static_cast<int64_t>(tokens))->products] += products;
    prefill_products += products;
  }
  out.kv_bytes = static_cast<uint64_t>(o.batch) * r.kv_bytes(o.prompt + o.tokens);
  const auto stop = [&] { return o.stop && o.stop(); };
  const Error cancelled{Errc::cancelled, "interrupted"};
  const Isa isa = host::detect_isa();

  Sequences sequences(o, model.vocab());
  std::optional<Error> failed;
  const auto forward = [&](int64_t first, int64_t count) {
    const model::Batch b = sequences.at(first, count);
    return seconds(*r.pool, [&] {
      if (auto logits = model.forward(b, *r.cache); !logits) failed = logits.error();
    });
  };
  forward(0, 1);
  std::vector<double> prefill, products, peak, of_peak;
  for (double spent = 0; prefill.size() < most_prefills && spent < prefill_seconds && !failed;) {
    if (stop()) return cancelled;
    const double s = forward(0, o.prompt);
    double least = 0;
    for (const auto& [in, count] : products_in) least += count * 1e-9 / multiply_rate(multiply_in(in), cpu.features, *r.pool, 10 * probe_rounds);
    prefill.push_back(batch * prompt / s);
    products.push_back(prefill_products / s * 1e-9);
    peak.push_back(prefill_products / least * 1e-9);
    of_peak.push_back(least / s);
    spent += s;
  }
  host::sample_memory();
  std::vector<double> decode, gbs, read_gbs, of_read;
  const auto bytes = static_cast<double>(out.weight_bytes_per_step);
  for (int64_t t = 0; t < o.tokens && !failed; ++t) {
    if (stop()) return cancelled;
    const double s = forward(o.prompt + t, 1), read = read_seconds(parts, isa, *r.pool);
    decode.push_back(batch / s);
    gbs.push_back(bytes / s * 1e-9);
    read_gbs.push_back(bytes / read * 1e-9);
    of_read.push_back(read / s);
  }
  if (failed) return *failed;
  host::sample_memory();
  out.prefill = spread_of(std::move(prefill));
  out.prefill_products = spread_of(std::move(products));
  out.peak = spread_of(std::move(peak));
  out.prefill_of_peak = spread_of(std::move(of_peak));
  out.decode = spread_of(std::move(decode));
  out.decode_gbs = spread_of(std::move(gbs));
  out.read_gbs = spread_of(std::move(read_gbs));
  out.decode_of_read = spread_of(std::move(of_read));
  return out;
}

}  // namespace qb::bench
