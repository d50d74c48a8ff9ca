// quantize: codes and scales from a BF16, F16 or F32 checkpoint.
#include <fmt/format.h>

#include "base/json.h"
#include "calib/algorithm.h"
#include "calib/range_observer.h"
#include "cli/command.h"
#include "cli/job_command.h"
#include "cli/mixing.h"
#include "cli/quantization_options.h"
#include "cli/ranks.h"
#include "host/host.h"
#include "ir/shorthand.h"
#include "recipe/recipe.h"

namespace qb::cli {
namespace {

struct Options : JobCommandOptions {
  std::string scheme, recipe, algorithm, kv;
  QuantizationOptions quantization;
  std::vector<std::string> ignore;
  std::string samples, observer;
  SampleLimits limits;
  MixingOptions mixing;
  bool list = false;
};

// With whose numerics it can be made; of static scales, and by algorithms, only from data.
std::string availability(const ir::Scheme& s, const ir::Shorthand& name) {
  std::string out;
  if (s.features == ir::Features{} || !name.algorithm.empty())
    for (recipe::Numerics n : {recipe::Numerics::modelopt, recipe::Numerics::llm_compressor})
      if (recipe::find_recipe(s.weight, n) != nullptr)
        out += fmt::format("{}{}", out.empty() ? "" : ", ", n == recipe::Numerics::modelopt ? "modelopt" : "llm-compressor");
  if (out.empty()) return "no recipe";
  if (!name.algorithm.empty()) out += fmt::format(", by {}", name.algorithm);
  return (s.input && s.input->when == ir::When::fixed) || !name.algorithm.empty() ? out + ", with --calibrate" : out;
}

int list(const Options& o) {
  Json all = Json::array(), made_by = Json::array();
  std::string text = fmt::format("{:<36} {:<44} {:<20} {}\n", "name", "scheme", "from", "made with the numerics of");
  for (const ir::Shorthand& s : ir::shorthands()) {
    const ir::Scheme scheme = *ir::parse_scheme(s.name);
    const std::string can = availability(scheme, s);
    text += fmt::format("{:<36} {:<44} {:<20} {}\n", s.name, s.scheme, s.from, can);
    all.push_back({{"name", s.name}, {"scheme", s.scheme}, {"from", s.from}, {"made", can}, {"recipe", s.recipe}, {"algorithm", s.algorithm}});
  }
  text += fmt::format("\n{:<36} {}\n", "recipe", "numerics");
  for (const recipe::Recipe* r : recipe::recipes()) {
    text += fmt::format("{:<36} {}\n", r->name, r->source);
    made_by.push_back({{"name", r->name}, {"source", r->source}});
  }
  Json algorithms = Json::array();
  text += fmt::format("\n{:<36} {}\n", "algorithm", "from");
  const auto add_algorithm = [&](std::string_view name, std::string_view source) {
    text += fmt::format("{:<36} {}\n", name, source);
    algorithms.push_back({{"name", name}, {"source", source}});
  };
  for (const calib::Algorithm* a : calib::algorithms()) add_algorithm(a->name, a->source);
  for (const pass::RotationWord& w : pass::rotation_words) add_algorithm(w.name, w.source);
  Json observers = Json::array();
  text += fmt::format("\n{:<36} {}\n", "observer", "from");
  for (const calib::ObserverKind* kind : calib::observers()) {
    const std::string name = kind->argument.what.empty() ? std::string(kind->name) : fmt::format("{}[:{}]", kind->name, kind->argument.usual);
    text += fmt::format("{:<36} {}\n", name, kind->source);
    observers.push_back({{"name", kind->name}, {"source", kind->source}, {"argument", kind->argument.what}});
  }
  if (o.common.json) {
    Json j = envelope("quantize", true, {});
    j["observers"] = std::move(observers);
    j["algorithms"] = std::move(algorithms);
    j["shorthands"] = std::move(all);
    j["recipes"] = std::move(made_by);
    print_json(j);
  } else {
    print_out(text);
  }
  return exit_done;
}

pass::Says::Input fp8_cache() {
  return {.type = *ir::parse_activation("fp8_tensor_static")};
}

int run(const Options& o);

Result<pass::QuantizeOptions> what_to_make(const Options& o) {
  if (!o.scheme.empty()) return pass::quantize_options(o.scheme, o.quantization.numerics, o.recipe, o.to);
  return quantization(o.quantization, o.to);
}

// --auto: a configuration is found first.
int run_auto(Options o) {
  if (!o.scheme.empty() || o.quantization.given() || !o.recipe.empty() || !o.algorithm.empty()) {
    print_err("quantbridge quantize: --auto finds the configuration: --scheme, --config, --recipe and --algorithm cannot stand beside it\n");
    return exit_usage;
  }
  JobOptions job;
  Limits limits;
  if (!parse_job_options("quantize", o, job, limits)) return exit_usage;
  job.quantize.emplace();
  job.quantize->config.ignore = o.ignore;
  job.quantize->regex = host::compile_regex;
  if (!o.kv.empty()) job.quantize->config.kv_cache = fp8_cache();
  const Calibration calibration{.file = o.samples, .limits = o.limits, .observer = o.observer, .out = o.out, .progress = {}};
  int code = exit_done;
  const std::optional<std::string> config = mix(o.mixing, o, o.quantization.numerics, calibration, job, limits, code);
  if (!config) return code;
  o.mixing = {};
  o.ignore.clear();  // the configuration has them
  o.quantization.text = *config;
  if (o.kv.empty()) o.samples.clear();  // nothing is left to measure
  return run(o);
}

int run(const Options& o) {
  if (o.list) return list(o);
  if (o.mixing.on) return run_auto(o);
  if (o.mixing.limited()) {
    print_err("quantbridge quantize: --bits, --size and --max-kl belong to --auto\n");
    return exit_usage;
  }
  const bool one = !o.scheme.empty(), config = o.quantization.given();
  if (one == config && (one || o.kv.empty())) {
    print_err("quantbridge quantize: --scheme or --config is required, or --kv alone, and not both; --list shows the names\n");
    return exit_usage;
  }
  if (!o.algorithm.empty() && o.scheme.empty()) {
    print_err(
        "quantbridge quantize: --algorithm belongs to --scheme; in a configuration it stands beside its weight: {\"linear\": {\"weight\": ..., \"algorithm\": "
        "...}}\n");
    return exit_usage;
  }
  if (!o.recipe.empty() && o.scheme.empty()) {
    print_err(
        "quantbridge quantize: --recipe belongs to --scheme; in a configuration it stands beside its weight: {\"linear\": {\"weight\": ..., \"recipe\": "
        "...}}\n");
    return exit_usage;
  }
  JobOptions job;
  Limits limits;
  if (!parse_job_options("quantize", o, job, limits)) return exit_usage;
  if (o.to == "dense") {
    print_err("quantbridge quantize: --to dense holds nothing quantized\n");
    return exit_usage;
  }
  Result<pass::QuantizeOptions> options = agree(ranks(), what_to_make(o));
  if (!options) return fail("quantize", options.error(), o.common);
  job.quantize = std::move(*options);
  if (!o.algorithm.empty()) job.quantize->config.everything.weight->made_by(o.algorithm);
  std::vector<std::string>& ignore = job.quantize->config.ignore;
  ignore.insert(ignore.end(), o.ignore.begin(), o.ignore.end());
  job.quantize->regex = host::compile_regex;
  if (!o.kv.empty()) job.quantize->config.kv_cache = fp8_cache();
  Calibration calibration{.file = o.samples, .limits = o.limits, .observer = o.observer, .out = o.out, .progress = {}};
  return run_job("quantize", o, job, limits, &calibration);
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_job_options(app, *o);
  o->to = "modelopt";
  app.add_option("--scheme", o->scheme, "what to make: fp8_channel:fp8_token, nvfp4, FP8_DYNAMIC, ...")->type_name("NAME");
  app.add_option("--to", o->to, "modelopt, compressed_tensors, hf_fp8, gptq, awq")->capture_default_str()->type_name("DIALECT");
  app.add_option("--recipe", o->recipe, "how to make it, where a producer has several ways: nvfp4_mse.modelopt, ... (--list)")->type_name("NAME");
  app.add_option("--algorithm", o->algorithm,
                 "what makes its weights from data: gptq, ... (--list); two together: smoothquant+gptq; hadamard in front, or alone, needs no data")
      ->type_name("NAME");
  add_quantization_options(app, o->quantization, "--config", "which modules get which scheme: a JSON file, or JSON (docs/quantization.md)", "FILE|JSON");
  app.add_option("--kv", o->kv, "quantize keys and values too: fp8; with scales of 1 unless they are measured")
      ->check(CLI::IsMember({"fp8"}))
      ->type_name("KIND");
  app.add_option("--calibrate", o->samples, "what scales and algorithms go by: text with a sample in each line, or input_ids in a .safetensors file")
      ->type_name("FILE");
  app.add_option("--calibrate-samples", o->limits.samples, "how many of them, from the first on")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--calibrate-tokens", o->limits.tokens, "how many tokens of each")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--observer", o->observer, "how static scales are made of what is measured: max, percentile:99.9, mse, ... (--list); default: the producer's")
      ->type_name("NAME[:ARG]");
  add_mixing_options(app, o->mixing);
  app.add_option("--ignore", o->ignore, "linears to leave alone besides lm_head: names, shell patterns, re:REGEX, fused names")->type_name("RULE");
  app.add_flag("--list", o->list, "the scheme names that users know from elsewhere, what can be made, and recipes, algorithms and observers");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(quantize) = {
    .name = "quantize", .summary = "Make a quantized checkpoint from BF16, F16 or F32 weights, or from quantized ones",
    .examples = "Examples:\n  quantbridge quantize ./Llama-BF16 ./Llama-FP8 --scheme fp8_channel:fp8_token\n"
                "  quantbridge quantize ./Llama-BF16 ./Llama-NVFP4 --scheme nvfp4 --to compressed_tensors\n"
                "  quantbridge quantize ./Llama-BF16 ./Llama-FP8-static --scheme fp8_tensor:fp8_tensor_static --kv fp8 --calibrate samples.txt\n"
                "  quantbridge quantize ./Llama-BF16 ./Llama-GPTQ --scheme int4_g128 --algorithm gptq --calibrate samples.txt --to gptq\n"
                "  quantbridge quantize ./Llama-BF16 ./Llama-NVFP4 --scheme nvfp4:nvfp4 --algorithm hadamard\n"
                "  quantbridge quantize ./in ./out --scheme FP8_DYNAMIC --ignore 're:.*down_proj'\n"
                "  quantbridge quantize ./in ./out --config '{\"linear\": \"nvfp4\", \"overrides\": [{\"match\": \"v_proj\", \"scheme\": \"fp8_channel\"}]}'\n"
                "  quantbridge quantize ./Llama-BF16 ./Llama-mixed --auto --bits 5\n"
                "  quantbridge quantize ./Llama-NVFP4 ./Llama-FP8 --scheme fp8_channel:fp8_token\n"
                "  quantbridge quantize --list",
    .rank = 4, .setup = setup, .together = true};
// clang-format on

}  // namespace qb::cli
