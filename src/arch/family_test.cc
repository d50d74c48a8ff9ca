#include "arch/family.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace qb::arch {
namespace {

Json config(const char* model_type) {
  return {{"model_type", model_type}, {"architectures", {"X"}},   {"hidden_size", 576},  {"intermediate_size", 1536},  {"num_hidden_layers", 30},
          {"num_attention_heads", 9}, {"num_key_value_heads", 3}, {"vocab_size", 49152}, {"tie_word_embeddings", true}};
}

const Module* find_module(const Topology& t, std::string_view path) {
  for (const Module& m : t.modules)
    if (m.path == path) return &m;
  return nullptr;
}

TEST(Family, SizesOfARealModel) {
  Topology t;
  Diagnostics diag;
  ASSERT_TRUE(describe(config("llama"), t, diag));
  const Module* k = find_module(t, "model.layers.29.self_attn.k_proj");
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(k->n, 192);
  EXPECT_EQ(k->k, 576);
  EXPECT_EQ(k->fused, "model.layers.29.self_attn.qkv_proj");
  EXPECT_EQ(k->input_norm, "model.layers.29.input_layernorm");
  EXPECT_TRUE(find_module(t, "lm_head")->optional);
  EXPECT_EQ(find_module(t, "model.layers.30.self_attn.k_proj"), nullptr);
}

TEST(Family, EveryFamilyOfTheManifestDescribesItsModels) {
  ASSERT_GE(families().size(), 4u);
  for (const Family* f : families()) {
    Topology t;
    Diagnostics diag;
    ASSERT_TRUE(describe(config(std::string(f->name).c_str()), t, diag)) << f->name;
    for (const Module& m : t.modules) {
      const bool matrix = m.kind == Kind::linear || m.kind == Kind::embedding;
      EXPECT_TRUE(!matrix || (m.n > 0 && m.k > 0)) << m.path;
    }
    EXPECT_EQ(find_module(t, "model.layers.0.self_attn.q_norm") != nullptr, f->name == "qwen3");
  }
}

TEST(Family, NonsenseIsNamed) {
  for (const auto& [key, value] : std::vector<std::pair<const char*, Json>>{{"hidden_size", 0},
                                                                            {"hidden_size", -1},
                                                                            {"hidden_size", "576"},
                                                                            {"hidden_size", nullptr},
                                                                            {"num_hidden_layers", 1e18},
                                                                            {"num_hidden_layers", 2000000000},
                                                                            {"vocab_size", 18446744073709551615u},
                                                                            {"num_attention_heads", 0},
                                                                            {"head_dim", 0},
                                                                            {"num_key_value_heads", -3},
                                                                            {"intermediate_size", 1.5}}) {
    Json c = config("llama");
    c[key] = value;
    Topology t;
    Diagnostics diag;
    EXPECT_FALSE(describe(c, t, diag)) << key;
    EXPECT_TRUE(diag.has("config-invalid")) << key;
  }
  for (const char* type : {"", "mixtral", "gpt_oss"}) {
    Topology t;
    Diagnostics diag;
    EXPECT_FALSE(describe(config(type), t, diag));
    EXPECT_TRUE(diag.has("family-unsupported"));
  }
}

}  // namespace
}  // namespace qb::arch
