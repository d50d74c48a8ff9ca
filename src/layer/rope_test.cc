#include "layer/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"

namespace qb::layer {
namespace {

Json parsed(std::string_view text) {
  Json out;
  JsonError error;
  EXPECT_TRUE(parse_json(text, out, error)) << error.what;
  return out;
}

// Frequencies of LlamaRotaryEmbedding of transformers 5.17 with head_dim 16 and max_position_embeddings 256, after positions 0 to length - 1.
struct Recorded {
  const char* name;
  const char* parameters;
  int64_t length;
  float frequencies[8];
  float scaling;
};
// clang-format off
const Recorded recorded[] = {
    {"default", R"({"rope_theta": 10000.0, "rope_type": "default"})", 16, {1.0F, 0.316227764F, 0.100000001F, 0.0316227786F, 0.00999999978F, 0.00316227786F, 0.00100000005F, 0.000316227786F}, 1.0F},
    {"default", R"({"rope_theta": 10000.0, "rope_type": "default"})", 300, {1.0F, 0.316227764F, 0.100000001F, 0.0316227786F, 0.00999999978F, 0.00316227786F, 0.00100000005F, 0.000316227786F}, 1.0F},
    {"linear", R"({"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0})", 16, {0.25F, 0.079056941F, 0.0250000004F, 0.00790569466F, 0.00249999994F, 0.000790569466F, 0.000250000012F, 7.90569466e-05F}, 1.0F},
    {"linear", R"({"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0})", 300, {0.25F, 0.079056941F, 0.0250000004F, 0.00790569466F, 0.00249999994F, 0.000790569466F, 0.000250000012F, 7.90569466e-05F}, 1.0F},
    {"dynamic", R"({"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0})", 16, {1.0F, 0.316227764F, 0.100000001F, 0.0316227786F, 0.00999999978F, 0.00316227786F, 0.00100000005F, 0.000316227786F}, 1.0F},
    {"dynamic", R"({"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0})", 300, {1.0F, 0.303157836F, 0.09190467F, 0.0278616212F, 0.00844646804F, 0.00256061298F, 0.000776269881F, 0.000235332293F}, 1.0F},
    {"llama3", R"({"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})", 16, {1.0F, 0.079403013F, 0.00470075384F, 0.000911583134F, 0.000176776681F, 3.42810235e-05F, 6.64786967e-06F, 1.28917316e-06F}, 1.0F},
    {"llama3", R"({"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})", 300, {1.0F, 0.079403013F, 0.00470075384F, 0.000911583134F, 0.000176776681F, 3.42810235e-05F, 6.64786967e-06F, 1.28917316e-06F}, 1.0F},
    {"yarn", R"({"rope_theta": 1000000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})", 16, {1.0F, 0.111142464F, 0.00790569466F, 0.00140585331F, 0.000250000012F, 4.44569851e-05F, 7.90569356e-06F, 1.40585337e-06F}, 1.13862944F},
    {"yarn", R"({"rope_theta": 1000000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})", 300, {1.0F, 0.111142464F, 0.00790569466F, 0.00140585331F, 0.000250000012F, 4.44569851e-05F, 7.90569356e-06F, 1.40585337e-06F}, 1.13862944F},
    {"yarn_mscale", R"({"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 0.5, "beta_fast": 16, "beta_slow": 2, "truncate": false})", 16, {1.0F, 0.14849025F, 0.0250000004F, 0.00790569466F, 0.00249999994F, 0.000790569466F, 0.000250000012F, 7.90569466e-05F}, 1.06482163F},
    {"yarn_mscale", R"({"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 0.5, "beta_fast": 16, "beta_slow": 2, "truncate": false})", 300, {1.0F, 0.14849025F, 0.0250000004F, 0.00790569466F, 0.00249999994F, 0.000790569466F, 0.000250000012F, 7.90569466e-05F}, 1.06482163F},
    {"longrope", R"({"rope_theta": 10000.0, "rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7000000000000002], "long_factor": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5]})", 16, {1.0F, 0.287479758F, 0.0833333358F, 0.0243252143F, 0.00714285718F, 0.00210818532F, 0.000624999986F, 0.000186016332F}, 1.15470054F},
    {"longrope", R"({"rope_theta": 10000.0, "rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7000000000000002], "long_factor": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5]})", 300, {0.5F, 0.126491114F, 0.0333333351F, 0.00903507881F, 0.00249999994F, 0.000702728401F, 0.000199999995F, 5.74959558e-05F}, 1.15470054F},
    {"longrope_nofactor", R"({"rope_theta": 10000.0, "rope_type": "longrope", "original_max_position_embeddings": 64, "short_factor": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "long_factor": [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]})", 16, {1.0F, 0.316227764F, 0.100000001F, 0.0316227786F, 0.00999999978F, 0.00316227786F, 0.00100000005F, 0.000316227786F}, 1.15470054F},
    {"longrope_nofactor", R"({"rope_theta": 10000.0, "rope_type": "longrope", "original_max_position_embeddings": 64, "short_factor": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "long_factor": [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]})", 300, {0.333333343F, 0.10540925F, 0.0333333351F, 0.010540925F, 0.00333333341F, 0.00105409266F, 0.00033333333F, 0.000105409257F}, 1.15470054F},
};
// clang-format on

void expect_recorded(const Rope& r, const Recorded& c) {
  ASSERT_EQ(r.half(), 8);
  EXPECT_NEAR(r.attention_scaling(), c.scaling, 1e-6F);
  for (int64_t i = 0; i < 8; ++i) EXPECT_NEAR(r.frequency(i, c.length) / c.frequencies[i], 1.0F, 1e-6F) << "pair " << i;
}

TEST(Rope, FrequenciesAsTransformersHasThem) {
  for (const Recorded& c : recorded) {
    SCOPED_TRACE(c.name);
    Json config = parsed(R"({"max_position_embeddings": 256})");
    config["rope_parameters"] = parsed(c.parameters);
    auto r = Rope::make(config, 16);
    ASSERT_TRUE(r.ok()) << r.error().what;
    expect_recorded(*r, c);
  }
}

TEST(Rope, OlderKeysMeanTheSame) {
  for (const Recorded& c : recorded) {
    SCOPED_TRACE(c.name);
    Json config = parsed(R"({"max_position_embeddings": 256})"), own = parsed(c.parameters), scaling = Json::object();
    config["rope_theta"] = own["rope_theta"];
    for (const auto& [key, value] : own.items())
      if (key != "rope_theta") scaling[key == "rope_type" ? "type" : key] = value;
    config["rope_scaling"] = std::string_view(c.name) == "default" ? Json() : scaling;
    auto r = Rope::make(config, 16);
    ASSERT_TRUE(r.ok()) << r.error().what;
    expect_recorded(*r, c);
  }
}

TEST(Rope, WhatIsNotSupportedIsNamed) {
  struct Case {
    const char *config, *word;
  };
  for (
      const Case& c : {
          Case{R"({"rope_scaling": {"type": "mrope"}})", "mrope"},
          Case{R"({"rope_parameters": {"rope_type": "proportional"}})", "proportional"},
          Case{R"({"partial_rotary_factor": 1.5})", "partial_rotary_factor"},
          Case{R"({"rope_parameters": {"full_attention": {}, "sliding_attention": {}}})", "between layers"},
          Case{R"({"rope_parameters": {"rope_type": "linear"}})", "factor"},
          Case{R"({"rope_parameters": {"rope_type": "linear", "factor": "x"}})", "factor"},
          Case{R"({"rope_theta": -1})", "rope_theta"},
          Case{R"({"rope_parameters": {"rope_type": "longrope", "factor": 2, "original_max_position_embeddings": 8, "short_factor": [1], "long_factor": [1]}})",
               "short_factor"},
          Case{
              R"({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 8}})",
              "high_freq_factor"},
      }) {
    auto r = Rope::make(parsed(c.config), 16);
    ASSERT_FALSE(r.ok()) << c.config;
    EXPECT_NE(r.error().what.find(c.word), std::string::npos) << r.error().what;
  }
  EXPECT_FALSE(Rope::make(parsed("{}"), 15).ok());
}

TEST(Rope, TableAndRotation) {
  auto r =
      Rope::make(parsed(R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}})"), 16);
  ASSERT_TRUE(r.ok()) << r.error().what;
  const int32_t positions[] = {0, 7, 300};
  float cos[24], sin[24];
  r->table(positions, 301, cos, sin);
  for (size_t t = 0; t < 3; ++t)
    for (size_t i = 0; i < 8; ++i) {
      const double angle = static_cast<double>(r->frequency(static_cast<int64_t>(i), 301) * static_cast<float>(positions[t]));
      EXPECT_NEAR(cos[t * 8 + i], std::cos(angle) * static_cast<double>(r->attention_scaling()), 1e-6);
      EXPECT_NEAR(sin[t * 8 + i], std::sin(angle) * static_cast<double>(r->attention_scaling()), 1e-6);
    }
  float x[32], want[32];
  for (int i = 0; i < 32; ++i) x[i] = want[i] = static_cast<float>(i % 7) - 2.5F;
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 8; ++i) {
      want[h * 16 + i] = x[h * 16 + i] * cos[8 + i] - x[h * 16 + 8 + i] * sin[8 + i];
      want[h * 16 + 8 + i] = x[h * 16 + 8 + i] * cos[8 + i] + x[h * 16 + i] * sin[8 + i];
    }
  rotate(x, 2, 16, 8, cos + 8, sin + 8);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(x[i], want[i]);
  // Neighbours turn as halves do.
  float pairs[32];
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(i % 7) - 2.5F;
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 8; ++i)
      for (int part = 0; part < 2; ++part) pairs[h * 16 + 2 * i + part] = x[h * 16 + part * 8 + i];
  rotate_neighbours(pairs, 2, 16, 8, cos + 8, sin + 8);
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 8; ++i)
      for (int part = 0; part < 2; ++part) EXPECT_EQ(pairs[h * 16 + 2 * i + part], want[h * 16 + part * 8 + i]);
}

// What does not turn stays, and the frequencies are those of a head as wide as what does.
TEST(Rope, APartOfAHeadTurns) {
  auto part = Rope::make(parsed(R"({"partial_rotary_factor": 0.5, "rope_theta": 10000.0})"), 32);
  auto whole = Rope::make(parsed(R"({"rope_theta": 10000.0})"), 16);
  ASSERT_TRUE(part.ok() && whole.ok());
  ASSERT_EQ(part->half(), 8);
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(part->frequency(i, 1), whole->frequency(i, 1));
  float x[32], cos[8], sin[8];
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(i);
  const int32_t position = 3;
  part->table(std::span(&position, 1), 4, cos, sin);
  rotate(x, 1, 32, 8, cos, sin);
  EXPECT_NE(x[15], 15.0F);
  for (int i = 16; i < 32; ++i) EXPECT_EQ(x[i], static_cast<float>(i));
}

TEST(Rope, KindsOfLayersHaveTheirOwn) {
  const Json config =
      parsed(R"({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}})");
  EXPECT_FLOAT_EQ(Rope::make(config, 16, "full_attention")->frequency(0, 1), 0.125F);
  EXPECT_FLOAT_EQ(Rope::make(config, 16, "sliding_attention")->frequency(2, 1), 0.1F);
}

}  // namespace
}  // namespace qb::layer
