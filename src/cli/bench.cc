// bench: the machine's limits and what the kernels make of them; with a path, a model's prefill and decode.
#include "bridge/bench.h"

#include <fmt/format.h>

#include <fstream>
#include <map>

#include "arch/match.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/roofline.h"
#include "cli/runtime_options.h"
#include "host/host.h"

namespace qb::cli {
namespace {

using bench::Spread;

struct Options : ModelOptions {
  bench::Workload work;
  std::string kernels, svg;
  int repeats = 9;
  bool tune = false;
};

Json to_json(const Spread& s) {
  return {{"median", s.median}, {"min", s.least}, {"max", s.most}, {"count", s.count}};
}
std::string text(const Spread& s, int digits = 1) {
  return fmt::format("{:.{}f} [{:.{}f}..{:.{}f}]", s.median, digits, s.least, digits, s.most, digits);
}

int interrupted_exit(const Options& o) {
  return fail("bench", {Errc::cancelled, "interrupted"}, o.common);
}

// Sizes of one token's linears: a square, a model's way up and down, and the widest of Llama's 8B model.
struct Size {
  int64_t m, n, k;
};
constexpr Size sizes[] = {{1, 2048, 2048}, {1, 8192, 2048}, {1, 2048, 8192}, {1, 14336, 4096}, {512, 4096, 4096}};

// Whether the kernel is asked for: by pattern, or, without one, because it would be chosen.
bool wanted(const Options& o, const kernel::Kernel& k, const kernel::Problem& p, const host::Cpu& cpu, const oracle::Policy& policy) {
  if (!host::covers(cpu.features, k.needs) || !k.accepts(p).ok) return false;
  if (!o.kernels.empty()) return shell_match(o.kernels, k.name);
  const auto choice = oracle::choose(p, cpu, kernel::kernels(), policy);
  return choice && choice->winner == &k;
}

// The limit that is nearer: reading the weights, or multiplying.
struct Bound {
  std::string_view name;
  Spread fraction;
};
Bound bound_of(const bench::KernelRates& r) {
  return r.of_read.median >= r.of_peak.median ? Bound{"read", r.of_read} : Bound{"peak", r.of_peak};
}

RoofPoint point_of(const kernel::Kernel& k, const kernel::Problem& p, const bench::KernelRates& r) {
  std::string_view name = k.name;
  if (name.starts_with("linear_")) name.remove_prefix(7);
  return {fmt::format("{} {} {}x{}x{}", name, ir::to_string(p.scheme), p.m, p.n, p.k), r.gbs.median > 0 ? r.products.median / r.gbs.median : 0,
          r.products.median, bound_of(r).fraction.median};
}

Json kernel_json(const kernel::Kernel& k, const kernel::Problem& p, int threads, const bench::KernelRates& r) {
  return {{"kernel", k.name},
          {"scheme", ir::to_string(p.scheme)},
          {"m", p.m},
          {"n", p.n},
          {"k", p.k},
          {"threads", threads},
          {"gb_per_s", to_json(r.gbs)},
          {"read_gb_per_s", to_json(r.read_gbs)},
          {"of_read", to_json(r.of_read)},
          {"multiply_adds_g_per_s", to_json(r.products)},
          {"peak_multiply_adds_g_per_s", to_json(r.peak)},
          {"of_peak", to_json(r.of_peak)},
          {"bound", bound_of(r).name},
          {"of_bound", to_json(bound_of(r).fraction)}};
}

int machine(const Options& o) {
  const host::Cpu cpu = host::this_cpu();
  const int all = o.threads > 0 ? o.threads : cpu.cores;
  const auto memory = bench::WeightMemory::make(bench::beyond_caches);
  if (!memory) return fail("bench", memory.error(), o.common);
  const Result<std::shared_ptr<const oracle::Profile>> profile = find_profile(o.profile, cpu);
  if (!profile) return fail("bench", profile.error(), o.common);
  const oracle::Policy policy{.profile = *profile};
  Json limits = Json::array(), kernels = Json::array();
  Roof roof;
  std::vector<RoofPoint> points;  // with all threads
  if (!o.common.json)
    print_out(fmt::format("{} with {} processors. Medians of {} [least..most]; fractions are of a probe that took turns in the same run.\n\n",
                          to_string(cpu.features), cpu.cores, o.repeats));
  for (const int threads : all == 1 ? std::vector<int>{1} : std::vector<int>{1, all}) {
    host::ThreadPool pool(threads);
    const bench::Peaks peaks = bench::measure_peaks(cpu, *memory, pool, o.repeats);
    limits.push_back({{"threads", threads},
                      {"read_gb_per_s", to_json(peaks.read_gbs)},
                      {"f32_multiply_adds_g_per_s", to_json(peaks.f32)},
                      {"bf16_multiply_adds_g_per_s", to_json(peaks.bf16)},
                      {"int8_multiply_adds_g_per_s", to_json(peaks.int8)},
                      {"clock_ghz", to_json(peaks.clock_ghz)}});
    if (threads == all) roof = {peaks.read_gbs.median, {{"float32", peaks.f32.median}, {"bfloat16", peaks.bf16.median}, {"bytes", peaks.int8.median}}};
    if (!o.common.json)
      print_out(fmt::format("{} thread{}: reads {} GB/s; multiply-adds {} G/s in float32, {} G/s in bfloat16, {} G/s of bytes; {} GHz\n", threads,
                            threads == 1 ? "" : "s", text(peaks.read_gbs), text(peaks.f32, 0), text(peaks.bf16, 0), text(peaks.int8, 0),
                            text(peaks.clock_ghz, 2)));
    for (const kernel::Kernel* k : kernel::kernels())
      for (const std::string_view scheme : bench::schemes_of(*k))
        for (const Size& size : sizes) {
          if (interrupted()) return interrupted_exit(o);
          const Result<ir::Scheme> parsed = ir::parse_scheme(scheme);
          if (!parsed) continue;
          const kernel::Problem p{size.m, size.n, size.k, *parsed};
          if (!wanted(o, *k, p, cpu, policy)) continue;
          const auto rates = bench::measure_kernel(*k, p, cpu, *memory, pool, o.repeats);
          if (!rates) return fail("bench", rates.error(), o.common);
          kernels.push_back(kernel_json(*k, p, threads, *rates));
          if (threads == all) points.push_back(point_of(*k, p, *rates));
          if (o.common.json) continue;
          print_out(fmt::format("  {:<30} {:<21} {:>3} x {:>5} x {:<5} ", k->name, scheme, p.m, p.n, p.k));
          print_out(p.m == 1 ? fmt::format("{} of reading, {:.1f} of {:.1f} GB/s\n", text(rates->of_read, 2), rates->gbs.median, rates->read_gbs.median)
                             : fmt::format("{} of the peak, {:.0f} of {:.0f} G multiply-adds/s\n", text(rates->of_peak, 2), rates->products.median,
                                           rates->peak.median));
          std::fflush(stdout);
        }
  }
  if (!o.svg.empty()) {
    std::ofstream file(o.svg, std::ios::binary);
    file << roofline_svg(fmt::format("{} with {} threads", to_string(cpu.features), all), roof, points);
    if (!file.flush()) return fail("bench", {Errc::io, fmt::format("cannot write {}", o.svg)}, o.common);
  }
  if (!o.common.json) return exit_done;
  Json j = envelope("bench", true, {});
  j["machine"] = {{"features", to_string(cpu.features)}, {"processors", cpu.cores}, {"limits", std::move(limits)}};
  j["kernels"] = std::move(kernels);
  j["model"] = nullptr;
  print_json(j);
  return exit_done;
}

// Which kernels run, for one token and for a pass of the prompt, and for how many linears.
std::map<std::pair<std::string, int64_t>, int> kernels_of(const Runtime& r, const bench::Workload& w) {
  std::map<std::pair<std::string, int64_t>, int> all;
  for (const auto& [name, linear] : r.model->linears())
    for (const int64_t m : std::vector<int64_t>{w.batch, w.batch * w.prompt}) ++all[{std::string(linear->plan().kernel_for(m)->name), m}];
  return all;
}

int model(const Options& o) {
  Context context;
  int code = exit_done;
  const int64_t room = engine::blocks_for(o.work.prompt + o.work.tokens) * model::KvCache::block_tokens * o.work.batch;
  std::unique_ptr<Runtime> r = load_model("bench", o, o.path, room, context, code);
  if (r == nullptr) return code;
  const host::Cpu cpu = host::this_cpu();
  bench::Workload work = o.work;
  work.stop = [] { return interrupted().load(); };
  const auto rates = bench::measure_model(*r, cpu, work);
  if (!rates) return fail("bench", rates.error(), o.common);
  const uint64_t packed = r->model->resident_bytes(), peak = host::peak_anonymous();
  const int threads = r->pool->size();
  const auto kernels = kernels_of(*r, o.work);
  if (o.common.json) {
    Json j = envelope("bench", true, r->session.diag.all());
    j["machine"] = {{"features", to_string(cpu.features)}, {"processors", cpu.cores}};
    Json names = Json::array();
    for (const auto& [kernel, count] : kernels) names.push_back({{"kernel", kernel.first}, {"tokens", kernel.second}, {"linears", count}});
    j["model"] = {{"path", r->session.path.string()},
                  {"threads", threads},
                  {"batch", o.work.batch},
                  {"prompt", o.work.prompt},
                  {"tokens", o.work.tokens},
                  {"kernels", std::move(names)},
                  {"packed_weight_bytes", packed},
                  {"weight_bytes_per_step", rates->weight_bytes_per_step},
                  {"kv_bytes", rates->kv_bytes},
                  {"peak_anonymous_bytes", peak},
                  {"prefill_tokens_per_s", to_json(rates->prefill)},
                  {"prefill_multiply_adds_g_per_s", to_json(rates->prefill_products)},
                  {"peak_multiply_adds_g_per_s", to_json(rates->peak)},
                  {"prefill_of_peak", to_json(rates->prefill_of_peak)},
                  {"decode_tokens_per_s", to_json(rates->decode)},
                  {"decode_gb_per_s", to_json(rates->decode_gbs)},
                  {"read_gb_per_s", to_json(rates->read_gbs)},
                  {"decode_of_read", to_json(rates->decode_of_read)}};
    print_json(j);
    return exit_done;
  }
  print_out(fmt::format("{}: {} thread{}, batch {}, {} prompt tokens, {} new\n", r->session.path.string(), threads, threads == 1 ? "" : "s", o.work.batch,
                        o.work.prompt, o.work.tokens));
  for (const auto& [kernel, count] : kernels)
    print_out(fmt::format("  kernel    {} for {} token{} in {} linears\n", kernel.first, kernel.second, kernel.second == 1 ? "" : "s", count));
  print_out(fmt::format("  memory    {} of packed weights, {} of KV cache, peak {} of anonymous memory; {} of weights read for a token\n", size_text(packed),
                        size_text(rates->kv_bytes), size_text(peak), size_text(rates->weight_bytes_per_step / static_cast<uint64_t>(o.work.batch))));
  print_out(fmt::format("  prefill   {} tokens/s; {} G multiply-adds/s, {} of the peak\n", text(rates->prefill), text(rates->prefill_products, 0),
                        text(rates->prefill_of_peak, 2)));
  print_out(fmt::format("  decode    {} tokens/s; {} GB/s of weights, {} of {} GB/s\n", text(rates->decode), text(rates->decode_gbs),
                        text(rates->decode_of_read, 2), text(rates->read_gbs)));
  return exit_done;
}

int run(const Options& o) {
  if (o.path.empty()) return o.tune ? tune(o.profile, o.threads, o.repeats, o.common) : machine(o);
  if (!o.kernels.empty() || !o.svg.empty() || o.tune) {
    print_err("quantbridge bench: --kernels, --svg and --tune are for the machine alone; with a PATH use --prefer and --deny\n");
    return exit_usage;
  }
  return model(o);
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, *o, false);
  app.add_option("--batch", o->work.batch, "sequences at once")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--prompt", o->work.prompt, "tokens of each prompt")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--tokens", o->work.tokens, "new tokens of each sequence")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--kernels", o->kernels, "without PATH: all kernels of this name or pattern (default: those that would be chosen)")->type_name("GLOB");
  app.add_option("--svg", o->svg, "without PATH: draw what the kernels reach beside what the machine allows")->type_name("FILE");
  app.add_flag("--tune", o->tune, "without PATH: measure which kernels are fastest here, and write it to --profile: what run, eval, bench and explain go by");
  app.add_option("--repeats", o->repeats, "without PATH: measurements of each median")->check(CLI::Range(1, 1000))->capture_default_str();
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(bench) = {
    .name = "bench", .summary = "The machine's limits, and what the kernels or a model make of them",
    .examples = "Examples:\n  quantbridge bench\n  quantbridge bench --kernels '*avx2' --threads 1\n  quantbridge bench ./SmolLM2-NVFP4 --threads 2\n"
                "  quantbridge bench --svg roofline.svg\n  quantbridge bench --tune\n  quantbridge bench ./model --batch 4 --prompt 128 --tokens 32 --json",
    .rank = 8, .setup = setup};
// clang-format on

}  // namespace qb::cli
