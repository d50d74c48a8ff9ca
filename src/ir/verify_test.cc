#include "ir/verify.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"

namespace qb::ir {
namespace {

Stored scalar(Role role, double value, ScaleForm form = ScaleForm::multiply) {
  Stored s{.role = role, .tensor = "t", .container = Elem::f32, .elem = Elem::f32, .view = row_major(1, 1, 32), .form = form};
  s.value = value;
  return s;
}

// q, k, v of one layer in NVFP4 with the given second-level scales.
Checkpoint nvfp4(std::vector<double> globals, std::vector<double> inputs, ScaleForm form = ScaleForm::multiply) {
  Checkpoint c;
  Diagnostics diag;
  const Json config = {{"model_type", "llama"},  {"hidden_size", 64},        {"intermediate_size", 64},
                       {"num_hidden_layers", 1}, {"num_attention_heads", 1}, {"vocab_size", 8}};
  EXPECT_TRUE(arch::describe(config, {}, c.topology, diag));
  size_t i = 0;
  for (size_t t = 0; t < c.topology.modules.size(); ++t) {
    Module m{.path = c.topology.modules[t].path, .kind = c.topology.modules[t].kind, .topology = static_cast<int>(t)};
    if (m.path.find("self_attn.") != std::string::npos && i < globals.size() && m.path.find("o_proj") == std::string::npos) {
      m.scheme = *parse_scheme("nvfp4:nvfp4");
      m.parts.push_back({.role = Role::code});
      m.parts.push_back(scalar(Role::global, globals[i], form));
      m.parts.push_back(scalar(Role::input_scale, inputs[i], form));
      ++i;
    }
    c.modules.push_back(m);
  }
  return c;
}

std::string worst(const Checkpoint& c, const char* code) {
  Diagnostics diag;
  verify(c, {"f"}, diag);
  for (const Problem& p : diag.all())
    if (p.code == code) return std::string(to_string(p.cls));
  return diag.all().empty() ? "good" : diag.all()[0].code;
}

// Norms and scales of which some have the other 16-bit dtype.
Checkpoint with_dtypes(Elem most, int many, Elem other, int few, Role role = Role::plain) {
  Checkpoint c = nvfp4({}, {});
  for (int i = 0; i < many + few; ++i) {
    Module& m = c.modules[static_cast<size_t>(i) % c.modules.size()];
    m.parts.push_back({.role = role, .tensor = "t", .container = i < many ? most : other, .elem = i < many ? most : other});
  }
  return c;
}

TEST(Verify, AFewTensorsOfTheOtherSixteenBits) {
  EXPECT_EQ(worst(with_dtypes(Elem::bf16, 20, Elem::f16, 1), "dtype-odd"), "suspicious");
  EXPECT_EQ(worst(with_dtypes(Elem::f16, 8, Elem::bf16, 2, Role::scale), "dtype-odd"), "suspicious");
  EXPECT_EQ(worst(with_dtypes(Elem::bf16, 8, Elem::f16, 4), "dtype-odd"), "good");
  EXPECT_EQ(worst(with_dtypes(Elem::bf16, 20, Elem::f32, 1), "dtype-odd"), "good");
}

TEST(Verify, AllOfAKindHaveABiasOrNoneHas) {
  Checkpoint c = nvfp4({1, 1, 1}, {1, 1, 1});
  std::vector<Module*> linears;
  for (Module& m : c.modules)
    if (m.scheme) linears.push_back(&m);
  ASSERT_EQ(linears.size(), 3u);
  for (Module* m : linears) m->parts.push_back({.role = Role::bias, .tensor = "b", .container = Elem::f32});
  EXPECT_EQ(worst(c, "part-missing"), "good");
  linears[1]->parts.pop_back();
  EXPECT_EQ(worst(c, "part-missing"), "damaged");
}

// All that a family of one layer has by its own rules: Qwen2 has biases on q, k and v, gpt-oss sinks.
Checkpoint family(const char* name, const Json& more = Json::object()) {
  Checkpoint c;
  Diagnostics diag;
  Json config = {{"model_type", name},     {"hidden_size", 64}, {"intermediate_size", 64},  {"num_hidden_layers", 1}, {"num_attention_heads", 1},
                 {"num_local_experts", 2}, {"vocab_size", 8},   {"num_key_value_heads", 1}, {"head_dim", 64}};
  config.update(more);
  EXPECT_TRUE(arch::describe(config, {}, c.topology, diag));
  for (size_t t = 0; t < c.topology.modules.size(); ++t) {
    Module m{.path = c.topology.modules[t].path, .kind = c.topology.modules[t].kind, .why = "plain", .topology = static_cast<int>(t)};
    if (m.kind == arch::Kind::linear || m.kind == arch::Kind::expert) m.parts.push_back({.role = Role::code});
    c.modules.push_back(m);
  }
  return c;
}
std::vector<std::string> lacking(const Checkpoint& c) {
  Diagnostics diag;
  verify(c, {"f"}, diag);
  std::vector<std::string> paths;
  for (const Problem& p : diag.all())
    if (p.code == "part-missing") paths.push_back(p.module);
  return paths;
}

TEST(Verify, FamiliesAndConfigsPromiseBiases) {
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(lacking(family("llama")), std::vector<std::string>{});
  EXPECT_EQ(lacking(family("qwen2")), (std::vector<std::string>{layer + "self_attn.q_proj", layer + "self_attn.k_proj", layer + "self_attn.v_proj"}));
  EXPECT_EQ(lacking(family("llama", {{"attention_bias", true}})).size(), 4u);
  EXPECT_EQ(lacking(family("llama", {{"mlp_bias", true}})).size(), 3u);
  // q, k, v, o, the router, both stacks and the sinks
  EXPECT_EQ(lacking(family("gpt_oss")).size(), 8u);
}

// Three experts of one projection with these activation scales.
Checkpoint experts(std::vector<double> inputs) {
  Checkpoint c;
  Diagnostics diag;
  const Json config = {{"model_type", "mixtral"}, {"hidden_size", 64},        {"intermediate_size", 64}, {"num_hidden_layers", 1},
                       {"vocab_size", 8},         {"num_attention_heads", 1}, {"num_local_experts", 3}};
  EXPECT_TRUE(arch::describe(config, {}, c.topology, diag));
  size_t i = 0;
  for (size_t t = 0; t < c.topology.modules.size(); ++t) {
    Module m{.path = c.topology.modules[t].path, .kind = c.topology.modules[t].kind, .topology = static_cast<int>(t)};
    if (c.topology.modules[t].of_experts.ends_with("w2")) {
      m.scheme = *parse_scheme("fp8_tensor:fp8_tensor_static");
      m.parts.push_back(scalar(Role::input_scale, inputs[i++]));
    }
    c.modules.push_back(m);
  }
  return c;
}

TEST(Verify, ExpertsThatNoSampleReached) {
  EXPECT_EQ(worst(experts({0.01, 0.02, 0.013}), "expert-uncalibrated"), "good");
  EXPECT_EQ(worst(experts({0.01, 1, 0.013}), "expert-uncalibrated"), "suspicious");
  EXPECT_EQ(worst(experts({0.01, 0.02, 0x1p-23}), "expert-uncalibrated"), "suspicious");
  EXPECT_EQ(worst(experts({1, 1, 1}), "expert-uncalibrated"), "good");  // a recipe without calibration
}

TEST(Verify, NumbersThatMultiplyNothingMayBeZero) {
  Checkpoint c = nvfp4({1, 1, 1}, {1, 1, 1});
  c.modules.front().parts.push_back(scalar(Role::calibration_other, 0));
  EXPECT_EQ(worst(c, "scale-zero"), "good");
  c.modules.front().parts.push_back(scalar(Role::calibration, -1));
  EXPECT_EQ(worst(c, "scale-negative"), "suspicious");
}

TEST(Verify, EqualSecondLevelScalesAreGood) {
  EXPECT_EQ(worst(nvfp4({2, 2, 2}, {1, 1, 1}), "x"), "good");
}
TEST(Verify, PowersOfTwoMayBeRepaired) {
  EXPECT_EQ(worst(nvfp4({1, 2, 4}, {1, 1, 1}), "fused-scale-mismatch"), "repairable");
}
TEST(Verify, OtherRatiosAreInconsistent) {
  EXPECT_EQ(worst(nvfp4({1, 1.37, 3.1}, {1, 1, 1}), "fused-scale-mismatch"), "inconsistent");
}
TEST(Verify, AGroupIsReportedOnce) {
  Diagnostics diag;
  verify(nvfp4({1, 2, 4}, {1, 1, 1}), {"f"}, diag);
  EXPECT_EQ(diag.all().size(), 1u);
}
TEST(Verify, ReciprocalsAreComparedAsWhatTheyMean) {
  EXPECT_EQ(worst(nvfp4({1, 0.5, 0.25}, {1, 1, 1}, ScaleForm::divide), "fused-scale-mismatch"), "repairable");
}
TEST(Verify, InputScalesOfOneInputMustAgree) {
  EXPECT_EQ(worst(nvfp4({2, 2, 2}, {1, 3, 1}), "fused-input-scale-mismatch"), "repairable");
}
TEST(Verify, ScalarsAreNumbers) {
  EXPECT_EQ(worst(nvfp4({NAN, 2, 2}, {1, 1, 1}), "scale-nan"), "damaged");
  EXPECT_EQ(worst(nvfp4({INFINITY, 2, 2}, {1, 1, 1}), "scale-inf"), "damaged");
  EXPECT_EQ(worst(nvfp4({2, 2, 2}, {0, 1, 1}), "scale-zero"), "damaged");
  EXPECT_EQ(worst(nvfp4({-2, 2, 2}, {1, 1, 1}), "scale-negative"), "suspicious");
}
TEST(Verify, KvScales) {
  Checkpoint c = nvfp4({}, {});
  for (Module& m : c.modules)
    if (m.kind == arch::Kind::attention) m.parts.push_back(scalar(Role::k_scale, 1.0f / 448));
  EXPECT_EQ(worst(c, "kv-scale-uncalibrated"), "suspicious");
  for (Module& m : c.modules)
    if (m.kind == arch::Kind::attention) m.parts[0].value = 5.5;
  EXPECT_EQ(worst(c, "kv-scale-large"), "suspicious");
}

}  // namespace
}  // namespace qb::ir
