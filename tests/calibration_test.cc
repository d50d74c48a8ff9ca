// Static scales are those that the producers measure on the same token ids.
//
// data/calibration/expected.json has what ModelOpt and llm-compressor write when they run the models in float32 (tools/conformance/calibration.py): theirs and
// ours differ by the order in which sums are taken. The checkpoints of the fixtures come from models in bfloat16, whose every step is rounded to 8 bits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>

#include "bridge/calibrate.h"
#include "host/host.h"
#include "suite.h"

namespace qb::suite {
namespace {

// Sums of up to 384 numbers in another order are off by some 20 units in the last place (the root of their number), and errors of three layers come together.
constexpr double most_ulps = 64;
// Sixteen roundings to bfloat16 lie between the embedding and the last input of two layers. A moving average in it also loses what is too small to be added.
constexpr double bfloat16_noise = 16 * 0x1p-9, bfloat16_average = 28 * 0x1p-9;

const Path data = Path(QB_TEST_DATA) / "calibration";

struct Case {
  std::string scheme, numerics;
  bool kv = false;
  std::vector<std::string> ignore;
  pass::Forms forms = {};
};

// The float scalars of what `quantize --calibrate` writes, by tensor; nothing, and a failure, where it writes nothing.
std::map<std::string, double> measured(const Fixture& base, const Case& c, uint64_t budget = 512 << 20, int threads = 2) {
  const Scratch scratch;
  std::map<std::string, double> out;
  Result<Session> session = open_session(base.path);
  EXPECT_TRUE(session.ok());
  JobOptions job = to_dialect(c.numerics == "modelopt" ? "modelopt" : "compressed_tensors");
  Result<pass::QuantizeOptions> options = pass::quantize_options(c.scheme, c.numerics, "", job.to);
  EXPECT_TRUE(options.ok());
  if (!session || !options) return out;
  job.quantize = std::move(*options);
  job.quantize->regex = host::compile_regex;
  job.quantize->config.ignore = c.ignore;
  job.forms = c.forms;
  if (c.kv) job.quantize->config.kv_cache = pass::Says::Input{.type = *ir::parse_activation("fp8_tensor_static")};
  Context context;
  context.limits = {.memory_budget = budget, .threads = threads};
  context.isa = host::detect_isa();
  Diagnostics diag;
  Calibration how{.file = calibration_ids(base, scratch).string(), .limits = {}, .out = scratch / "out", .progress = {}};
  const Result<bool> done = calibrate(*session, job, how, context, diag);
  EXPECT_TRUE(done.ok()) << done.error().what;
  if (!done || !*done) {
    for (const Problem& p : diag.all()) ADD_FAILURE() << p.code << " " << p.module << ": " << p.found;
    return out;
  }
  Job planned;
  Diagnostics problems;
  EXPECT_TRUE(plan_job(*session, job, context, planned, problems));
  const Result<JobReport> written = write_job(*session, planned, scratch / "out", false, true, context);
  EXPECT_TRUE(written.ok());
  for (const auto& [name, tensor] : read_weights(scratch / "out").tensors) {
    const std::string last = name.substr(name.rfind('.') + 1);
    if (last == "input_scale" || last == "input_global_scale" || last == "k_scale" || last == "v_scale") {
      EXPECT_EQ(tensor.dtype, "F32") << name;
      out[name] = values(tensor).at(0);
    }
    if (last == "input_zero_point") out[name] = static_cast<double>(static_cast<int8_t>(tensor.bytes.at(0)));
  }
  return out;
}

double ulps(double x, double y) {
  return std::abs(x - y) / std::ldexp(1.0, std::ilogb(x) - 23);
}

// What the producer measured of the linears that are in the file: not of experts that it takes apart, and not of what lies beside the language model, which no
// token goes through.
std::map<std::string, double> comparable(const Json& scales, const Weights& source, bool latent) {
  std::map<std::string, double> out;
  for (const auto& [name, value] : scales.items()) {
    const std::string module = name.substr(0, name.rfind('.'));
    const bool attention = module.ends_with("self_attn");
    if (latent && (attention || name.ends_with("k_scale") || name.ends_with("v_scale"))) continue;
    if (name.find("vision") == name.npos &&
        (attention || name.ends_with(".k_scale") || name.ends_with(".v_scale") || source.tensors.contains(module + ".weight")))
      out[name] = value.get<double>();
  }
  return out;
}

TEST(Calibration, ScalesAreTheProducersInFloat32) {
  const Json expected = read_document(data / "expected.json");
  int cases = 0, scales = 0, equal = 0;
  double worst = 0;
  for (const Json& e : expected["cases"]) {
    const std::optional<Path> path = checkpoint_at("base/" + std::string(string_at(e, "base")));
    if (!path) continue;
    const std::string title = fmt::format("{} {} {}", string_at(e, "base"), string_at(e, "numerics"), string_at(e, "label"));
    SCOPED_TRACE(title);
    const Fixture base = fixture_at(*path);
    Case c{std::string(string_at(e, "scheme")), std::string(string_at(e, "numerics")), e["kv"].get<bool>(), {}};
    if (find(base.config, "vision_config") != nullptr) c.ignore = {"re:.*(vision_tower|multi_modal_projector).*"};
    // What engines cache in place of keys and values, llm-compressor measures; scales of that are refused here.
    const bool latent = find(base.config, "kv_lora_rank") != nullptr;
    c.kv &= !latent;
    const auto got = measured(base, c);
    const auto wanted = comparable(e["scales"], base.weights(), latent);
    EXPECT_GT(wanted.size(), 0u);
    double here = 0;
    for (const auto& [name, want] : wanted) {
      const auto it = got.find(name);
      if (it == got.end()) {
        ADD_FAILURE() << name << " is missing";
        continue;
      }
      if (name.ends_with("zero_point")) {
        EXPECT_EQ(it->second, want) << name;
        continue;
      }
      const double off = ulps(want, it->second);
      EXPECT_LE(off, most_ulps) << name << ": " << it->second << ", expected " << want;
      here = std::max(here, off);
      equal += off == 0 ? 1 : 0;
      ++scales;
    }
    for (const auto& [name, value] : got) EXPECT_TRUE(wanted.contains(name) || name.find("vision") != name.npos) << name << " is not one of the producer's";
    worst = std::max(worst, here);
    ++cases;
    if (std::getenv("QUANTBRIDGE_VERBOSE") != nullptr) std::printf("%-60s %6.1f ulp\n", title.c_str(), here);
  }
  EXPECT_GT(cases, 20);
  std::printf("%d cases, %d scales, %d equal, the others within %.1f ulp\n", cases, scales, equal, worst);
}

// The checkpoints as they were released: their producers ran the models in bfloat16, and llm-compressor stores scales in it.
TEST(Calibration, ScalesAreNearThoseOfModelsInBfloat16) {
  const std::vector<Fixture> bases = fixtures("base");
  std::vector<Weights> weights;
  for (const Fixture& b : bases) weights.push_back(b.weights());
  int checkpoints = 0, scales = 0;
  double worst = 0;
  for (const auto& [folder, numerics] : {std::pair{"modelopt", "modelopt"}, {"compressed_tensors", "llm-compressor"}})
    for (const Fixture& f : fixtures(folder)) {
      const bool compressor = std::string_view(numerics) == "llm-compressor";
      const std::string_view family = string_at(f.config, "model_type");
      // Its tracer loses the causal mask of these, and they were calibrated on what they do not compute.
      if (compressor && (family == "mixtral" || family == "phi3" || family == "qwen3_moe")) continue;
      if (!scope_of(f).in || f.name.find("legacy") != f.name.npos || f.name.find("output") != f.name.npos) continue;
      const Weights theirs = f.weights();
      const Fixture* base = base_of(bases, weights, f, theirs);
      Result<Session> session = open_session(f.path);
      if (base == nullptr || !session || find(base->config, "kv_lora_rank") != nullptr) continue;
      std::map<std::string, std::set<std::string>> modules;  // by scheme
      for (const ir::Module& m : session->checkpoint.modules)
        if (m.scheme && m.scheme->input && m.scheme->input->when == ir::When::fixed && m.scheme->features == ir::Features{} && m.kind == arch::Kind::linear)
          modules[to_string(*m.scheme)].insert(m.path);
      const std::optional<ir::KvCache>& kv = session->checkpoint.kv;
      const bool fp8_kv = kv && !kv->per_head && !kv->affine && kv->scheme.type.code == Elem::e4m3 && !theirs.tensors.empty();
      for (const auto& [scheme, paths] : modules) {
        SCOPED_TRACE(f.name + " " + scheme);
        const auto got = measured(*base, {scheme, numerics, fp8_kv, {}});
        ++checkpoints;
        for (const auto& [name, value] : got) {
          const auto it = theirs.tensors.find(name);
          const bool of_kv = name.ends_with(".k_scale") || name.ends_with(".v_scale");
          if (it == theirs.tensors.end() || name.ends_with("zero_point") || !(of_kv || paths.contains(name.substr(0, name.rfind('.'))))) continue;
          const double want = values(it->second).at(0), off = std::abs(value / want - 1);
          EXPECT_LE(off, compressor && of_kv ? bfloat16_average : bfloat16_noise) << name << ": " << value << ", the producer has " << want;
          worst = std::max(worst, off);
          ++scales;
        }
      }
    }
  EXPECT_GT(checkpoints, 0);
  std::printf("%d checkpoints, %d scales, within %.2f %%\n", checkpoints, scales, worst * 100);
}

// What is between layers lies in a file where the budget is small.
TEST(Calibration, ScalesDependOnNeitherBudgetNorThreads) {
  const std::optional<Path> path = checkpoint_at("base/llama_small");
  ASSERT_TRUE(path);
  const Fixture base = fixture_at(*path);
  for (const char* numerics : {"modelopt", "llm-compressor"}) {
    const Case c{"fp8_tensor:fp8_tensor_static", numerics, true, {}};
    EXPECT_EQ(measured(base, c), measured(base, c, 64 << 10, 1));
  }
}

// What is taken apart on the way sees what the whole would have seen.
TEST(Calibration, PartsOfAMatrixHaveTheScaleOfTheWhole) {
  const std::optional<Path> path = checkpoint_at("base/phi3_long_tiny");
  ASSERT_TRUE(path);
  const Fixture base = fixture_at(*path);
  Case c{"fp8_tensor:fp8_tensor_static", "modelopt"};
  const std::map<std::string, double> whole = measured(base, c);
  c.forms.projections = pass::Form::separate;
  const std::map<std::string, double> parts = measured(base, c);
  ASSERT_TRUE(whole.contains("model.layers.1.mlp.gate_up_proj.input_scale"));
  for (const auto& [name, scale] : whole) {
    const std::map<std::string, std::vector<const char*>> own{{"qkv_proj", {"q_proj", "k_proj", "v_proj"}}, {"gate_up_proj", {"gate_proj", "up_proj"}}};
    const std::string module = name.substr(0, name.rfind('.')), last = module.substr(module.rfind('.') + 1);
    if (!own.contains(last)) {
      EXPECT_EQ(parts.at(name), scale) << name;
      continue;
    }
    for (const char* part : own.at(last)) EXPECT_EQ(parts.at(module.substr(0, module.rfind('.') + 1) + part + ".input_scale"), scale) << part << " of " << name;
  }
}

}  // namespace
}  // namespace qb::suite
