// Models in another basis (`hadamard`): they compute what they did, are written the same by any number of threads, and whatever opens them later needs no word
// of it. What the algebra does not allow is named.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "bridge/calibrate.h"
#include "bridge/rotate.h"
#include "bridge/runtime.h"
#include "calib/algorithm.h"
#include "dialect/history.h"
#include "engine/generate.h"
#include "host/cpu.h"
#include "host/host.h"
#include "num/hadamard.h"
#include "quantbridge/bridge.h"
#include "suite.h"

namespace qb::suite {
namespace {

void set_up(Context& c, const Limits& limits = {64 << 20, 2}) {
  c.limits = limits;
  c.isa = host::detect_isa();
}

Session opened(const Path& path) {
  Result<Session> s = open_session(path);
  EXPECT_TRUE(s.ok());
  return std::move(*s);
}

// The session in the other basis; `parts` are the kinds of problems that it has then.
Session rotated(const Path& path, const std::set<std::string>& problems = {}) {
  Session s = opened(path);
  Context context;
  set_up(context);
  const Result<bool> done = rotate(s, {true, true}, context);
  EXPECT_TRUE(done.ok() && *done) << (done.ok() ? "refused" : done.error().what);
  std::set<std::string> codes;
  for (const Problem& p : s.diag.all())
    if (p.code.starts_with("rotation-")) codes.insert(p.code);
  EXPECT_EQ(codes, problems);
  return s;
}

std::vector<float> logits_of(Session s, bool reference = true) {
  RuntimeOptions options;
  options.threads = 2;
  options.context = 32;
  options.model.reference = reference;
  options.model.linear.cpu = host::this_cpu();
  options.model.wide_kv = reference;
  Context context;
  set_up(context);
  const Result<std::unique_ptr<Runtime>> r = Runtime::load(std::move(s), options, context);
  EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().what);
  std::vector<float> all;
  if (!r) return all;
  const std::vector<std::vector<int32_t>> ids{{1, 7, 3, 22, 5, 40, 11, 2, 30, 13, 4, 9}};
  const auto scored = engine::score(*(*r)->model, *(*r)->cache, ids, [&](size_t, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
    return true;
  });
  EXPECT_TRUE(scored.ok()) << (scored.ok() ? "" : scored.error().what);
  return all;
}

// The checkpoint in float32, where rounding of the rotated weights is far below everything else.
Path in_float32(const Path& base, const Scratch& scratch, const pass::Forms& forms = {}) {
  JobOptions wide = to_dialect("dense");
  wide.dense_dtype = Elem::f32;
  wide.forms = forms;
  const Outcome done = convert(base, scratch / "f32", wide);
  EXPECT_TRUE(done.written) << done.text();
  return scratch / "f32";
}

struct Known {
  const char* name;
  bool residual, heads;
};
constexpr Known bases[] = {{"base/llama_mini1", true, true},     // tied
                           {"base/llama_small", true, true},     // untied
                           {"base/qwen2_mini", true, true},      // biases, tied
                           {"base/qwen3_mini", true, true},      // norms of heads, tied
                           {"base/qwen2_moe_tiny", true, true},  // experts, one that is shared and has a gate
                           {"base/qwen3_moe_window_tiny", true, true},
                           {"base/phi3_long_tiny", true, true},     // matrices that are joined
                           {"base/deepseek_v2_tiny", true, false},  // latent attention
                           {"base/deepseek_v3_groups_tiny", true, false},
                           {"base/gemma2_tiny", false, true},  // norms behind each half of a layer
                           {"base/gemma3_tiny", false, true},
                           {"base/mixtral", true, true},   // of the larger set, where it is there
                           {"base/gpt_oss", false, true},  // stacked experts with their inputs first
                           {"base/llama_odd", true, true}};

// Each weight is off by half a unit of float32 (2^-25 of a number of the size of its row), independently of the others; an output of a linear by that much of
// itself, since errors of its terms add like the terms do at random. A layer has seven linears one behind the other, norms make nothing larger, and softmax and
// gates are no steeper than linear here: eight times the sum of all that, and of as much rounding in either run, is above all of it.
double tolerance(const Session& s) {
  return 8 * static_cast<double>(7 * s.checkpoint.topology.layers + 2) * 3 * 0x1p-25;
}

// The relative error of the logits of `after`; above 0, or nothing was rotated.
double error_of(const Session& after, const Session& before) {
  const std::vector<float> want = logits_of(before), got = logits_of(after);
  EXPECT_EQ(got.size(), want.size());
  if (got.size() != want.size()) return 1;
  double off = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    off += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    size += std::pow(static_cast<double>(want[i]), 2);
  }
  EXPECT_GT(off, 0) << "nothing was rotated";
  return std::sqrt(off / size);
}

TEST(Rotation, ComputesTheSame) {
  int compared = 0;
  for (const Known& base : bases) {
    const std::optional<Path> path = checkpoint_at(base.name);
    if (!path) continue;
    SCOPED_TRACE(base.name);
    const Scratch scratch;
    const Path wide = in_float32(*path, scratch);
    const Session before = opened(wide);
    Session after = rotated(wide, base.residual && base.heads ? std::set<std::string>{} : std::set<std::string>{"rotation-partial"});
    EXPECT_EQ(after.rotated.find("residual") != std::string::npos, base.residual) << after.rotated;
    EXPECT_EQ(after.rotated.find("values") != std::string::npos, base.heads) << after.rotated;
    EXPECT_EQ(before.checkpoint.topology.tied_embeddings && base.residual, after.rotated.find("head of its own") != std::string::npos);
    const double error = error_of(after, before);
    EXPECT_LT(error, tolerance(before));
    std::printf("%-32s %s: off by %.2g, allowed %.2g\n", base.name, after.rotated.c_str(), error, tolerance(before));
    ++compared;
  }
  EXPECT_GE(compared, 11);
}

// q, k and v in one matrix, whose last rows are the values; experts in one tensor; and experts with biases, taken apart from one that has their inputs first.
TEST(Rotation, ComputesTheSameInOtherForms) {
  constexpr pass::Forms joined{pass::Form::joined, pass::Form::joined}, apart{pass::Form::as_is, pass::Form::separate};
  for (const auto& [name, forms] : {std::pair{"base/qwen2_mini", joined}, std::pair{"base/qwen2_moe_tiny", joined},
                                    std::pair{"base/qwen3_moe_window_tiny", joined}, std::pair{"base/gpt_oss", apart}}) {
    const std::optional<Path> path = checkpoint_at(name);
    if (!path) continue;  // of the larger set
    SCOPED_TRACE(name);
    const Scratch scratch;
    const Path other = in_float32(*path, scratch, forms);
    const Session before = opened(other);
    EXPECT_LT(error_of(rotated(other), before), tolerance(before));
  }
}

std::vector<double> tensor_of(const Session& s, const std::string& name) {
  const TensorInfo* const t = s.package.tensor(name);
  if (t == nullptr) {
    ADD_FAILURE() << name;
    return {};
  }
  Tensor out{.dtype = std::string(info(t->dtype).safetensors), .shape = t->shape, .bytes = std::string(t->bytes, '\0')};
  const ReadRequest read{t->file, t->offset, std::as_writable_bytes(std::span(out.bytes))};
  EXPECT_TRUE(s.package.source->read(std::span(&read, 1)).ok());
  return values(out);
}

// An element of the matrix of blocks: signs, then Sylvester's.
double element(int64_t block, int64_t period, int64_t q, int64_t p) {
  if (q / block != p / block) return 0;
  const auto shared = static_cast<uint64_t>((q % block) & (p % block));
  return random_sign(static_cast<uint64_t>(q % period)) * (std::popcount(shared) % 2 == 0 ? 1 : -1) / std::sqrt(static_cast<double>(block));
}

// Of a model of 128 = 2 heads of 64 over one of keys and values, tied; blocks of the stream are those of 128, which is a power of two.
TEST(Rotation, WeightsAreProductsWithTheMatrix) {
  const std::optional<Path> path = checkpoint_at("base/llama_mini1");
  ASSERT_TRUE(path);
  const Scratch scratch;
  const Path wide = in_float32(*path, scratch);
  const Session was = opened(wide), is = rotated(wide);
  const std::string layer = "model.layers.0.";
  const std::vector<double> gain = tensor_of(was, layer + "input_layernorm.weight"), last = tensor_of(was, "model.norm.weight");
  struct {
    std::string name, from;
    int64_t cols, along, down;  // blocks; 0: as it is
    const std::vector<double>* gains;
  } const cases[] = {{layer + "self_attn.q_proj.weight", "", 128, 128, 0, &gain},    {layer + "self_attn.v_proj.weight", "", 128, 128, 64, &gain},
                     {layer + "self_attn.o_proj.weight", "", 128, 64, 128, nullptr}, {layer + "mlp.down_proj.weight", "", 128, 0, 128, nullptr},
                     {"model.embed_tokens.weight", "", 128, 128, 0, nullptr},        {"lm_head.weight", "model.embed_tokens.weight", 128, 128, 0, &last}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    const std::vector<double> x = tensor_of(was, c.from.empty() ? c.name : c.from), y = tensor_of(is, c.name);
    ASSERT_EQ(x.size(), y.size());
    const auto rows = static_cast<int64_t>(x.size()) / c.cols;
    for (const int64_t i : {int64_t{0}, int64_t{5}, rows - 1})
      for (const int64_t j : {int64_t{0}, int64_t{77}, c.cols - 1}) {
        double want = 0;
        const int64_t top = c.down == 0 ? i : i / c.down * c.down, left = c.along == 0 ? j : j / c.along * c.along;
        for (int64_t a = top; a < top + std::max<int64_t>(c.down, 1); ++a)
          for (int64_t b = left; b < left + std::max<int64_t>(c.along, 1); ++b)
            want += (c.down == 0 ? 1 : element(c.down, c.down, a, i)) * (c.along == 0 ? 1 : element(c.along, c.along, b, j)) *
                    x[static_cast<size_t>(a * c.cols + b)] * (c.gains == nullptr ? 1 : (*c.gains)[static_cast<size_t>(b)]);
        EXPECT_NEAR(y[static_cast<size_t>(i * c.cols + j)], want, std::abs(want) * 0x1p-24 + 1e-12) << i << "," << j;
      }
  }
  for (const double x : tensor_of(is, layer + "input_layernorm.weight")) EXPECT_EQ(x, 1);
  for (const double x : tensor_of(is, "model.norm.weight")) EXPECT_EQ(x, 1);
  EXPECT_FALSE(bool_at(*is.package.document("config.json"), "tie_word_embeddings", true));
}

// Quantized with `algorithm`, as the command does it.
Path quantized(const Path& base, const Path& out, std::string_view scheme, std::string_view algorithm, const std::string& to, const Limits& limits) {
  Result<Session> s = open_session(base);
  JobOptions job = to_dialect(to);
  job.quantize = *pass::quantize_options(std::string(scheme), "", "", to);
  job.quantize->regex = host::compile_regex;
  job.quantize->config.everything.weight->made_by(algorithm);
  EXPECT_EQ(job.quantize->config.rotation().any(), algorithm.starts_with("hadamard"));
  Context context;
  set_up(context, limits);
  const Result<bool> done = rotate(*s, job.quantize->config.rotation(), context);
  EXPECT_TRUE(done.ok() && *done) << (done.ok() ? "" : done.error().what);
  Diagnostics diag;
  const Scratch scratch;
  Calibration how{.file = calibration_ids(fixture_at(base), scratch).string(), .limits = {}, .out = out, .progress = {}};
  if (!job.quantize->config.everything.weight->algorithm.empty()) {
    const Result<bool> measured = calibrate(*s, job, how, context, diag);
    EXPECT_TRUE(measured.ok() && *measured) << (measured.ok() ? "" : measured.error().what);
  }
  diag = {};
  Job planned;
  EXPECT_TRUE(plan_job(*s, job, context, planned, diag));
  const Result<JobReport> report = write_job(*s, planned, out, false, true, context);
  EXPECT_TRUE(report.ok()) << (report.ok() ? "" : report.error().what);
  return out;
}

TEST(Rotation, AnyNumberOfThreadsAndAnyBudgetWritesTheSameBytes) {
  int compared = 0;
  for (const auto& [name, scheme, algorithm, to] :
       {std::tuple{"base/llama_mini1", "nvfp4", "hadamard", "modelopt"}, std::tuple{"base/qwen3_mini", "int4_g32", "hadamard+gptq", "gptq"},
        std::tuple{"base/phi3_long_tiny", "fp8_channel", "hadamard", "compressed_tensors"}}) {
    const std::optional<Path> base = checkpoint_at(name);
    if (!base) continue;
    SCOPED_TRACE(fmt::format("{} {}", name, algorithm));
    const Scratch scratch;
    const Path one = quantized(*base, scratch / "1", scheme, algorithm, to, {64 << 20, 1});
    for (const auto& [threads, budget] : {std::pair{2, 64 << 20}, std::pair{7, 64 << 20}, std::pair{7, 4 << 20}})
      same_bytes(one, quantized(*base, scratch / fmt::format("{} {}", threads, budget), scheme, algorithm, to, {static_cast<uint64_t>(budget), threads}));
    ++compared;
  }
  EXPECT_GE(compared, 3);
}

// What was written opens like any other, says what was done to it, and is what loading would have made.
TEST(Rotation, WhatIsWrittenIsWhatLoadingMakes) {
  for (const char* name : {"base/llama_mini1", "base/qwen2_moe_tiny"}) {
    const std::optional<Path> base = checkpoint_at(name);
    ASSERT_TRUE(base);
    SCOPED_TRACE(name);
    const Scratch scratch;
    const char* const scheme = "fp8_channel:fp8_token";
    const Session stored = opened(quantized(*base, scratch / "out", scheme, "hadamard", "modelopt", {64 << 20, 2}));
    EXPECT_TRUE(stored.readable && stored.diag.ok());
    EXPECT_FALSE(stored.checkpoint.topology.tied_embeddings);
    const std::vector<HistoryStep> history = read_history(stored.package);
    ASSERT_EQ(history.size(), 1U);
    EXPECT_TRUE(std::any_of(history[0].changes.begin(), history[0].changes.end(), [](const std::string& s) { return s.find("rotated") != s.npos; }));
    Session loaded = rotated(*base);
    pass::QuantizeOptions options = *pass::quantize_options(scheme, "", "", "modelopt");
    options.regex = host::compile_regex;
    Diagnostics diag;
    ASSERT_TRUE(pass::quantize(loaded.checkpoint, options, diag));
    EXPECT_EQ(logits_of(stored, false), logits_of(loaded, false));
  }
}

// Factors and codes are found in the other basis, whose norms are ones before they take factors up.
TEST(Rotation, AlgorithmsWorkInTheOtherBasis) {
  const std::optional<Path> base = checkpoint_at("base/llama_small");
  ASSERT_TRUE(base);
  const std::vector<float> want = logits_of(opened(*base));
  for (const auto& [scheme, algorithm, to] :
       {std::tuple{"int8_channel", "hadamard+gptq", "compressed_tensors"}, std::tuple{"int8_channel", "hadamard+awq", "compressed_tensors"},
        std::tuple{"int8_channel:int8_token", "hadamard+smoothquant+gptq", "compressed_tensors"}}) {
    SCOPED_TRACE(algorithm);
    const Scratch scratch;
    const double error = error_of(opened(quantized(*base, scratch / "out", scheme, algorithm, to, {64 << 20, 2})), opened(*base));
    // Eight bits lose a hundredth; another basis than that of the factors would leave nothing.
    EXPECT_LT(error, 0.05);
  }
}

TEST(Rotation, WhatCannotBeIsNamed) {
  const auto refused = [](const Path& path) {
    Session s = opened(path);
    Context context;
    set_up(context);
    const Result<bool> done = rotate(s, {true, true}, context);
    EXPECT_TRUE(done.ok());
    EXPECT_FALSE(*done);
    EXPECT_TRUE(s.rotated.empty());
    std::string found;
    for (const Problem& p : s.diag.all())
      if (p.code == "rotation-unsuited") found = p.found;
    return found;
  };
  const std::optional<Path> quantized_one = checkpoint_at("compressed_tensors/fp8_dynamic"), base = checkpoint_at("base/llama_mini1");
  ASSERT_TRUE(quantized_one && base);
  EXPECT_NE(refused(*quantized_one).find("already"), std::string::npos) << refused(*quantized_one);
  const Scratch scratch;
  std::filesystem::copy(*base, scratch / "unknown", std::filesystem::copy_options::recursive);
  Json config = read_document(scratch / "unknown/config.json");
  config["model_type"] = "falcon_h9";
  write_bytes(scratch / "unknown/config.json", dump_json(config));
  EXPECT_NE(refused(scratch / "unknown").find("falcon_h9"), std::string::npos);
  // Less memory than a block needs is the caller's to change.
  Session s = opened(*base);
  Context context;
  set_up(context, {4096, 1});
  const Result<bool> done = rotate(s, {true, true}, context);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().code, Errc::out_of_memory);
  // Norms behind a half of a layer, and latent attention, by name.
  for (const auto& [name, words] : {std::pair{"base/gemma2_tiny", "post_attention_layernorm"}, std::pair{"base/deepseek_v2_tiny", "values"},
                                    std::pair{"base/gemma3_vision_tiny", "residual stream"}}) {
    const std::optional<Path> path = checkpoint_at(name);
    ASSERT_TRUE(path) << name;
    const Session partly = rotated(*path, {"rotation-partial"});
    std::string found;
    for (const Problem& p : partly.diag.all())
      if (p.code == "rotation-partial") found += p.found;
    EXPECT_NE(found.find(words), std::string::npos) << found;
  }
}

TEST(Rotation, TheLibraryDoesItToo) {
  const std::optional<Path> base = checkpoint_at("base/llama_mini1");
  ASSERT_TRUE(base);
  const Scratch scratch;
  const Result<Bridge> bridge = Bridge::open(base->string());
  ASSERT_TRUE(bridge.ok());
  Target target;
  target.dialect = "modelopt";
  target.quantization = R"({"default": {"weight": "nvfp4", "algorithm": "hadamard"}})";
  const Result<void> done = bridge->write(target, (scratch / "library").string());
  ASSERT_TRUE(done.ok()) << done.error().what;
  same_bytes(quantized(*base, scratch / "command", "nvfp4", "hadamard", "modelopt", {64 << 20, 2}), scratch / "library");
}

TEST(Rotation, WordsOfUsers) {
  const auto error = [](std::string_view text) {
    const auto parsed = calib::parse_algorithms(text, recipe::Numerics::modelopt);
    return parsed ? std::string() : parsed.error().what;
  };
  EXPECT_NE(error("hadamrd").find("hadamard"), std::string::npos);
  EXPECT_NE(error("gptq+hadamard").find("in front"), std::string::npos);
  Result<pass::QuantConfig> config =
      pass::parse_quant_config(R"({"default": "nvfp4", "overrides": [{"match": "down_proj", "weight": "int4_g32", "algorithm": "hadamard+gptq"}]})");
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(config->rotation().residual && config->rotation().values);
  EXPECT_EQ(config->overrides[0].says.weight->algorithm, "gptq");
  EXPECT_FALSE(pass::parse_quant_config("nvfp4")->rotation().any());
  pass::Says::Weight values;
  values.made_by("hadamard_values+awq+gptq");
  EXPECT_TRUE(values.rotation.values && !values.rotation.residual);
  EXPECT_EQ(values.algorithm, "awq+gptq");
  for (const char* text : {"hadamard+", "hadamardx", "+hadamard"}) {
    pass::Says::Weight w;
    w.made_by(text);
    EXPECT_FALSE(w.rotation.any()) << text;
    EXPECT_NE(error(w.algorithm), "") << text;
  }
}

}  // namespace
}  // namespace qb::suite
