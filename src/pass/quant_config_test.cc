#include "pass/quant_config.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "pass/assignment.h"
#include "pass/quantize.h"

namespace qb::pass {
namespace {

arch::Module module(std::string path, arch::Kind kind = arch::Kind::linear, std::string fused = {}, std::string_view of_experts = {}) {
  arch::Module m;
  m.path = std::move(path);
  m.kind = kind;
  m.fused = std::move(fused);
  m.of_experts = of_experts;
  return m;
}

// A model of two linears that engines fuse, an expert, a router, a head and an embedding.
ir::Checkpoint model() {
  ir::Checkpoint c;
  arch::Module router = module("model.layers.0.mlp.gate");
  router.exempt = true;
  c.topology.modules = {
      module("model.layers.0.self_attn.q_proj", arch::Kind::linear, "model.layers.0.self_attn.qkv_proj"),
      module("model.layers.0.self_attn.k_proj", arch::Kind::linear, "model.layers.0.self_attn.qkv_proj"),
      module("model.layers.0.mlp.experts.0.up_proj", arch::Kind::linear, "model.layers.0.mlp.experts.0.gate_up_proj", "mlp.experts.{}.up_proj"),
      router,
      module("lm_head"),
      module("model.embed_tokens", arch::Kind::embedding)};
  for (size_t i = 0; i < c.topology.modules.size(); ++i) {
    ir::Module m{.path = c.topology.modules[i].path, .kind = c.topology.modules[i].kind, .n = 64, .k = 128};
    m.topology = static_cast<int>(i);
    m.parts.push_back({.role = ir::Role::code, .tensor = m.path + ".weight", .container = Elem::bf16, .elem = Elem::bf16, .shape = {64, 128}});
    c.modules.push_back(std::move(m));
  }
  return c;
}

QuantizeOptions options(std::string_view text, const std::vector<std::string>& settings = {}) {
  Result<QuantConfig> config = parse_quant_config(text, settings);
  EXPECT_TRUE(config.ok()) << text << ": " << config.error().what;
  Result<QuantizeOptions> out = quantize_options(config ? std::move(*config) : QuantConfig{}, "", "modelopt");
  EXPECT_TRUE(out.ok());
  return out ? *out : QuantizeOptions{};
}

// The schemes of the model's modules in words, "-" for plain numbers.
std::vector<std::string> schemes(const ir::Checkpoint& c) {
  std::vector<std::string> out;
  for (const ir::Module& m : c.modules) out.push_back(m.scheme ? to_string(*m.scheme) : "-");
  return out;
}

std::vector<std::string> assigned(std::string_view text, const std::vector<std::string>& settings = {}) {
  ir::Checkpoint c = model();
  Diagnostics diag;
  EXPECT_TRUE(quantize(c, options(text, settings), diag)) << (diag.all().empty() ? "" : diag.all().front().code + ": " + diag.all().front().found);
  return schemes(c);
}

std::string problem(ir::Checkpoint c, std::string_view text) {
  Diagnostics diag;
  quantize(c, options(text), diag);
  return diag.all().empty() ? "" : diag.all().front().code;
}

using List = std::vector<std::string>;

TEST(QuantConfig, OverridesBeatKindsWhichBeatTheDefault) {
  EXPECT_EQ(assigned("nvfp4"), (List{"nvfp4", "nvfp4", "nvfp4", "-", "-", "-"}));
  EXPECT_EQ(assigned(R"({"default": "nvfp4", "moe": {"weight": "mxfp4", "activation": "mxfp8"}})"), (List{"nvfp4", "nvfp4", "mxfp4:mxfp8", "-", "-", "-"}));
  EXPECT_EQ(assigned(R"({"linear": "W4A16", "lm_head": "fp8_per_channel", "embedding": "int8_channel"})"),
            (List{"int4_g128", "int4_g128", "-", "-", "fp8_channel:fp8_token", "int8_channel"}));
  EXPECT_EQ(assigned(R"({"default": "nvfp4", "linear": null})"), (List{"-", "-", "nvfp4", "-", "-", "-"}));
  EXPECT_EQ(assigned(R"({"default": "nvfp4", "linear": {"weight": null, "activation": null}})"), (List{"-", "-", "nvfp4", "-", "-", "-"}));
  // An entry leaves open what it does not say.
  EXPECT_EQ(assigned(R"({"default": "fp8_per_channel", "moe": {"activation": "bf16"}})"),
            (List{"fp8_channel:fp8_token", "fp8_channel:fp8_token", "fp8_channel", "-", "-", "-"}));
  EXPECT_EQ(assigned(R"({"default": "nvfp4", "overrides": [{"match": "k_proj", "weight": "mxfp8"}, {"match": "k_proj", "activation": "mxfp8"},
                         {"match": "*.q_proj", "scheme": "none"}, {"match": "lm_head", "scheme": "nvfp4"}]})"),
            (List{"-", "mxfp8:mxfp8", "nvfp4", "-", "nvfp4", "-"}));
}

TEST(QuantConfig, IgnoreTakesFusedNamesAndBeatsAll) {
  EXPECT_EQ(assigned(R"({"default": "nvfp4", "ignore": ["qkv_proj"], "overrides": [{"match": "q_proj", "scheme": "mxfp8"}]})"),
            (List{"-", "-", "nvfp4", "-", "-", "-"}));
  EXPECT_EQ(assigned("nvfp4", {"ignore=[\"model.layers.0.self_attn.q_proj\"]"}), (List{"-", "nvfp4", "nvfp4", "-", "-", "-"}));
}

TEST(QuantConfig, SettingsAreKeysOfIt) {
  EXPECT_EQ(assigned("nvfp4", {"moe.weight=mxfp4", "moe.activation=mxfp8"}), (List{"nvfp4", "nvfp4", "mxfp4:mxfp8", "-", "-", "-"}));
  EXPECT_EQ(assigned("", {"linear=nvfp4"}), (List{"nvfp4", "nvfp4", "-", "-", "-", "-"}));
  EXPECT_EQ(assigned("mxfp4", {R"({"linear": {"activation": null, "weight": null}})"}), (List{"-", "-", "mxfp4", "-", "-", "-"}));
}

// Scales of fused modules come from one maximum where the modules are made alike.
TEST(QuantConfig, FusedModulesThatDifferShareNothing) {
  ir::Checkpoint c = model();
  Diagnostics diag;
  ASSERT_TRUE(quantize(c, options("nvfp4"), diag));
  EXPECT_EQ(c.modules[0].make->amax_over.size(), 2U);
  c = model();
  ASSERT_TRUE(quantize(c, options(R"({"default": "nvfp4", "overrides": [{"match": "k_proj", "scheme": "fp8_per_channel"}]})"), diag));
  EXPECT_EQ(c.modules[0].make->amax_over.size(), 1U);
  EXPECT_TRUE(c.modules[1].make->amax_over.empty());
}

TEST(QuantConfig, SlipsAreErrorsThatNameWhatWasMeant) {
  const std::pair<const char*, const char*> slips[] = {
      {"nvfp5", "nvfp4"},
      {"fp8", "fp8_tensor"},
      {R"({"linar": "nvfp4"})", "linear"},
      {R"({"linear": {"activaton": "fp8_token"}})", "activation"},
      {R"({"linear": "fp8_per_chanel"})", "fp8_per_channel"},
      {R"({"linear": {"weight": "nvfp4", "activation": "mxfp9"}})", "mxfp8"},
      {R"({"linear": {"weight": "fp8_per_channel"}})", "activation"},
      {R"({"linear": {"weight": null, "activation": "fp8_token"}})", "with weights only"},
      {R"({"linear": {"recipe": "nvfp4.modelopt"}})", "weight"},
      {R"({"linear": {"algorithm": "gptq"}})", "weight"},
      {R"({"linear": {"weight": "int4_g64", "algorithm": 4}})", "a name"},
      {R"({"linear": {"weight": "int4_g64", "algoritm": "gptq"}})", "algorithm"},
      {R"({"linear": "bf16"})", "null"},
      {R"({"linear": 4})", "number"},
      {R"({"overrides": [{"match": "x"}]})", "says nothing"},
      {R"({"overrides": [{"scheme": "nvfp4"}]})", "match"},
      {R"({"overrides": [{"match": "x", "scheme": "nvfp4", "activation": "bf16"}]})", "beside"},
      {R"({"overrides": {}})", "list"},
      {R"({"ignore": [1]})", "text"},
      {R"({"embedding": "fp8_per_channel"})", "weight alone"},
      {R"({"linear": "nvfp4", "linear": "mxfp4"})", "linear"},
      {R"({"linear": )", "byte"},
      {"[1]", "scheme"},
  };
  for (const auto& [text, word] : slips) {
    const Result<QuantConfig> r = parse_quant_config(text);
    ASSERT_FALSE(r.ok()) << text;
    EXPECT_EQ(r.error().code, Errc::invalid_argument) << text;
    EXPECT_NE(r.error().what.find(word), std::string::npos) << text << ": " << r.error().what;
  }
  for (const char* setting : {"moe", "=x", "moe.activation=", "moe.activation.more=x", "mo.activation=bf16"})
    EXPECT_FALSE(parse_quant_config("", List{setting}).ok()) << setting;
  EXPECT_FALSE(parse_quant_config(R"({"moe": "nvfp4"})", List{"moe.activation=bf16"}).ok());
  QuantConfig config = *parse_quant_config(R"({"linear": {"weight": "nvfp4", "recipe": "nvfp4_mze.modelopt"}})");
  const Result<QuantizeOptions> recipe = quantize_options(config, "", "modelopt");
  ASSERT_FALSE(recipe.ok());
  EXPECT_NE(recipe.error().what.find("nvfp4_mse.modelopt"), std::string::npos);
}

TEST(QuantConfig, WhatNamesNothingIsReported) {
  EXPECT_EQ(problem(model(), R"({"default": "nvfp4", "ignore": ["o_proj"]})"), "ignore-ghost");
  EXPECT_EQ(problem(model(), R"({"default": "nvfp4", "overrides": [{"match": "o_proj", "scheme": null}]})"), "quantization-ghost");
  EXPECT_EQ(problem(model(), R"({"ignore": []})"), "nothing-to-quantize");
  ir::Checkpoint dense = model();
  dense.modules.erase(dense.modules.begin() + 2);
  EXPECT_EQ(problem(dense, R"({"linear": "nvfp4", "moe": "mxfp4"})"), "quantization-ghost");
}

// A checkpoint of NVFP4 whose activations are NVFP4 with stored scales, and an expert that it leaves plain.
ir::Checkpoint quantized() {
  ir::Checkpoint c = model();
  for (size_t i : {0, 1}) {
    c.modules[i].scheme = *ir::parse_scheme("nvfp4:nvfp4");
    c.modules[i].parts.push_back({.role = ir::Role::input_scale, .tensor = "s", .value = 0.5});
  }
  return c;
}

TEST(QuantConfig, ActivationsOfQuantizedWeightsMayBeOthers) {
  ir::Checkpoint c = quantized();
  Diagnostics diag;
  ASSERT_TRUE(quantize(c, options(R"({"linear": {"activation": "bf16"}})"), diag));
  EXPECT_EQ(schemes(c), (List{"nvfp4", "nvfp4", "-", "-", "-", "-"}));
  EXPECT_EQ(c.modules[0].part(ir::Role::input_scale), nullptr);
  c = quantized();
  ASSERT_TRUE(quantize(c, options(R"({"overrides": [{"match": "k_proj", "activation": "mxfp8"}]})"), diag));
  EXPECT_EQ(schemes(c), (List{"nvfp4:nvfp4", "nvfp4:mxfp8", "-", "-", "-", "-"}));
  EXPECT_NE(c.modules[0].part(ir::Role::input_scale), nullptr);
}

TEST(QuantConfig, WhatContradictsTheCheckpointIsReported) {
  EXPECT_EQ(problem(quantized(), "mxfp8"), "already-quantized");
  EXPECT_EQ(problem(quantized(), "nvfp4"), "already-quantized");        // other activations than the checkpoint's, and not said by themselves
  EXPECT_EQ(problem(quantized(), "nvfp4:nvfp4"), "already-quantized");  // the expert is plain in the checkpoint
  EXPECT_EQ(problem(quantized(), R"({"linear": "nvfp4:nvfp4"})"), "");
  EXPECT_EQ(problem(quantized(), R"({"linear": null})"), "already-quantized");
  EXPECT_EQ(problem(quantized(), R"({"linear": {"activation": "fp8_tensor_static"}})"), "calibration-needed");
  ir::Checkpoint kv = quantized();
  kv.kv = ir::KvCache{.scheme = *ir::parse_activation("nvfp4")};
  EXPECT_EQ(problem(kv, R"({"linear": {"activation": "bf16"}, "kv_cache": "fp8"})"), "kv-disagrees");
}

}  // namespace
}  // namespace qb::pass
