#include "arch/family.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/json.h"

namespace qb::arch {
namespace {

Json config(const char* model_type) {
  return {{"model_type", model_type}, {"architectures", {"X"}},   {"hidden_size", 576},  {"intermediate_size", 1536},  {"num_hidden_layers", 30},
          {"num_attention_heads", 9}, {"num_key_value_heads", 3}, {"vocab_size", 49152}, {"tie_word_embeddings", true}};
}

// DeepSeek-V3 with fewer layers and experts.
Json deepseek() {
  Json c = config("deepseek_v3");
  for (const auto& [key, value] : {std::pair{"num_hidden_layers", 4},
                                   {"first_k_dense_replace", 2},
                                   {"n_routed_experts", 8},
                                   {"moe_intermediate_size", 128},
                                   {"n_shared_experts", 2},
                                   {"q_lora_rank", 96},
                                   {"kv_lora_rank", 64},
                                   {"qk_nope_head_dim", 32},
                                   {"qk_rope_head_dim", 16},
                                   {"v_head_dim", 24},
                                   {"num_nextn_predict_layers", 1}})
    c[key] = value;
  return c;
}

std::vector<TensorInfo> tensors(const std::vector<std::pair<const char*, std::vector<int64_t>>>& named) {
  std::vector<TensorInfo> all;
  for (const auto& [name, shape] : named) {
    all.emplace_back();
    all.back().name = name;
    all.back().shape = shape;
    all.back().dtype = Elem::bf16;
  }
  std::sort(all.begin(), all.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  return all;
}

const Module* find_module(const Topology& t, std::string_view path) {
  for (const Module& m : t.modules)
    if (m.path == path) return &m;
  return nullptr;
}

TEST(Family, SizesOfARealModel) {
  Topology t;
  Diagnostics diag;
  ASSERT_TRUE(describe(config("llama"), {}, t, diag));
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
    Json c = deepseek();
    for (const char* key : {"shared_expert_intermediate_size", "head_dim"}) c[key] = 64;
    c["model_type"] = f->name;
    ASSERT_TRUE(describe(c, {}, t, diag)) << f->name;
    for (const Module& m : t.modules) {
      const bool matrix = m.kind == Kind::linear || m.kind == Kind::embedding;
      EXPECT_TRUE(!matrix || (m.n > 0 && m.k > 0)) << m.path;
    }
    // Norms and fused groups that rows name are there.
    for (const Module& m : t.modules) EXPECT_TRUE(m.input_norm.empty() || find_module(t, m.input_norm) != nullptr) << f->name << " " << m.path;
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
    EXPECT_FALSE(describe(c, {}, t, diag)) << key;
    EXPECT_TRUE(diag.has("config-invalid")) << key;
  }
}

TEST(Family, ExpertsAndDenseLayers) {
  Topology t;
  Diagnostics diag;
  ASSERT_TRUE(describe(deepseek(), {}, t, diag));
  EXPECT_NE(find_module(t, "model.layers.1.mlp.up_proj"), nullptr);
  EXPECT_EQ(find_module(t, "model.layers.1.mlp.gate"), nullptr);
  EXPECT_EQ(find_module(t, "model.layers.2.mlp.up_proj"), nullptr);
  const Module* router = find_module(t, "model.layers.2.mlp.gate");
  ASSERT_NE(router, nullptr);
  EXPECT_TRUE(router->exempt);
  EXPECT_EQ(router->n, 8);
  EXPECT_EQ(router->plain, "e_score_correction_bias");
  const Module* up = find_module(t, "model.layers.3.mlp.experts.7.up_proj");
  ASSERT_NE(up, nullptr);
  EXPECT_EQ(up->n, 128);
  EXPECT_EQ(up->fused, "model.layers.3.mlp.experts.7.gate_up_proj");
  EXPECT_EQ(up->input_norm, "model.layers.3.post_attention_layernorm");
  EXPECT_EQ(find_module(t, "model.layers.3.mlp.experts.8.up_proj"), nullptr);
  EXPECT_EQ(find_module(t, "model.layers.3.mlp.shared_experts.down_proj")->k, 256);
  EXPECT_EQ(find_module(t, "model.layers.0.self_attn.q_b_proj")->n, 9 * 48);
  EXPECT_EQ(find_module(t, "model.layers.0.self_attn.kv_b_proj")->n, 9 * 56);
  EXPECT_EQ(find_module(t, "model.layers.0.self_attn.kv_a_proj_with_mqa")->n, 80);
  EXPECT_EQ(find_module(t, "model.layers.0.self_attn.o_proj")->k, 9 * 24);
  EXPECT_EQ(find_module(t, "model.layers.0.self_attn.q_proj"), nullptr);
  EXPECT_EQ(find_module(t, "model.layers.4.eh_proj"), nullptr);  // its tensors are not there
  Json lite = deepseek();
  lite["q_lora_rank"] = nullptr;
  Topology u;
  ASSERT_TRUE(describe(lite, {}, u, diag));
  EXPECT_EQ(find_module(u, "model.layers.0.self_attn.q_proj")->n, 9 * 48);
  EXPECT_EQ(find_module(u, "model.layers.0.self_attn.q_a_proj"), nullptr);
  EXPECT_TRUE(diag.all().empty());
}

TEST(Family, QwenSaysWhichLayersHaveExperts) {
  Json c = config("qwen3_moe");
  c["num_hidden_layers"] = 6;
  c["num_experts"] = 2;
  c["moe_intermediate_size"] = 64;
  c["decoder_sparse_step"] = 2;
  c["mlp_only_layers"] = {3};
  Topology t;
  Diagnostics diag;
  ASSERT_TRUE(describe(c, {}, t, diag));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(find_module(t, "model.layers." + std::to_string(i) + ".mlp.gate") != nullptr, i == 1 || i == 5) << i;
}

TEST(Family, TheTensorsSayHowAnExpertIsSpelled) {
  Json c = config("mixtral");
  c["num_local_experts"] = 2;
  c["num_hidden_layers"] = 1;
  Topology t;
  Diagnostics diag;
  const auto stored =
      tensors({{"model.layers.0.block_sparse_moe.experts.0.gate_proj.weight", {8, 8}}, {"model.layers.0.mlp.experts.1.down_proj.weight", {8, 8}}});
  ASSERT_TRUE(describe(c, stored, t, diag));
  EXPECT_NE(find_module(t, "model.layers.0.block_sparse_moe.experts.0.gate_proj"), nullptr);
  EXPECT_EQ(find_module(t, "model.layers.0.block_sparse_moe.experts.0.w1"), nullptr);
  EXPECT_NE(find_module(t, "model.layers.0.mlp.experts.1.down_proj"), nullptr);
  EXPECT_NE(find_module(t, "model.layers.0.block_sparse_moe.experts.1.w1"), nullptr);
}

TEST(Family, ALanguageModelInsideAnother) {
  Json c = {{"model_type", "gemma3"}, {"text_config", {{"model_type", "gemma3_text"}, {"num_hidden_layers", 1}, {"hidden_size", 64}}}};
  for (const std::string body : {"model.language_model", "language_model.model"}) {
    const std::string norm = body + ".layers.0.input_layernorm.weight";
    const auto stored = tensors({{norm.c_str(), {64}}, {"vision_tower.blocks.0.qkv.weight", {96, 32}}, {"vision_tower.patch.weight", {32, 3, 4, 4}}});
    Topology t;
    Diagnostics diag;
    ASSERT_TRUE(describe(c, stored, t, diag));
    EXPECT_NE(find_module(t, body + ".layers.0.input_layernorm"), nullptr);
    EXPECT_EQ(find_module(t, body + ".layers.0.self_attn.q_proj")->n, 8 * 256);  // the class's own sizes
    EXPECT_EQ(find_module(t, body + ".embed_tokens")->k, 64);
    EXPECT_TRUE(t.tied_embeddings);
    const Module* tower = find_module(t, "vision_tower.blocks.0.qkv");
    ASSERT_NE(tower, nullptr);
    EXPECT_TRUE(tower->exempt && tower->kind == Kind::linear);
    EXPECT_EQ(find_module(t, "vision_tower.patch")->kind, Kind::other);
    EXPECT_TRUE(diag.ok() && diag.has("modules-by-structure"));
  }
}

TEST(Family, AnUnknownOneIsReadByItsTensors) {
  Topology t;
  Diagnostics diag;
  const auto stored = tensors({{"h.0.attn.q_proj.weight", {64, 64}},
                               {"h.0.attn.q_proj.bias", {64}},
                               {"h.0.attn.k_proj.k_scale", {}},
                               {"h.0.attn.k_proj.weight", {64, 64}},
                               {"h.0.ln.weight", {64}},
                               {"h.0.mixer.A_log", {16}},
                               {"h.0.up.weight_packed", {64, 32}},
                               {"h.0.up.weight_scale", {64, 4}},
                               {"h.0.up.lora.weight", {64, 4}},
                               {"wte.weight", {100, 64}}});
  ASSERT_TRUE(describe({{"model_type", "brand_new"}, {"hidden_size", 64}, {"num_attention_heads", 4}, {"num_hidden_layers", "many"}}, stored, t, diag));
  EXPECT_EQ(t.kv_heads, 4);
  EXPECT_EQ(t.head_dim, 16);
  EXPECT_TRUE(diag.ok() && diag.has("family-unknown"));
  EXPECT_EQ(t.model_type, "brand_new");
  const std::vector<std::pair<const char*, Kind>> want{{"h.0.attn", Kind::attention}, {"h.0.attn.k_proj", Kind::linear}, {"h.0.attn.q_proj", Kind::linear},
                                                       {"h.0.ln", Kind::norm},        {"h.0.mixer", Kind::other},        {"h.0.up", Kind::linear},
                                                       {"wte", Kind::embedding}};
  ASSERT_EQ(t.modules.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(t.modules[i].path, want[i].first);
    EXPECT_EQ(t.modules[i].kind, want[i].second) << want[i].first;
    EXPECT_TRUE(t.modules[i].structural);
  }
}

TEST(Family, TheTensorsSayWhatIsJoined) {
  const auto described = [](const char* family, const std::vector<std::pair<const char*, std::vector<int64_t>>>& named) {
    Json c = config(family);
    c["num_hidden_layers"] = 1;
    c["num_experts"] = 2;
    c["moe_intermediate_size"] = 64;
    Topology t;
    Diagnostics diag;
    EXPECT_TRUE(describe(c, tensors(named), t, diag));
    return t;
  };
  const std::string layer = "model.layers.0.";
  // As the family has it, where no tensor says otherwise.
  EXPECT_NE(find_module(described("phi3", {}), layer + "self_attn.qkv_proj"), nullptr);
  EXPECT_NE(find_module(described("gpt_oss", {}), layer + "mlp.experts.down_proj"), nullptr);
  EXPECT_EQ(find_module(described("llama", {}), layer + "self_attn.qkv_proj"), nullptr);

  const Topology apart = described("phi3", {{"model.layers.0.self_attn.k_proj.weight", {192, 576}}});
  EXPECT_NE(find_module(apart, layer + "self_attn.v_proj"), nullptr);
  EXPECT_NE(find_module(apart, layer + "mlp.gate_up_proj"), nullptr);  // each group by itself

  const Topology fused = described("llama", {{"model.layers.0.self_attn.qkv_proj.weight", {960, 576}}});
  const Module* qkv = find_module(fused, layer + "self_attn.qkv_proj");
  ASSERT_NE(qkv, nullptr);
  EXPECT_EQ(qkv->n, 576 + 2 * 192);
  EXPECT_EQ(qkv->split.unit, 64);
  EXPECT_EQ(qkv->split.parts[0].count, 9);
  EXPECT_EQ(qkv->split.parts[2].count, 3);
  ASSERT_EQ(qkv->parts.size(), 3U);
  EXPECT_EQ(qkv->parts[1].path, layer + "self_attn.k_proj");
  EXPECT_NE(find_module(fused, layer + "mlp.up_proj"), nullptr);

  const Topology stacks =
      described("qwen3_moe", {{"model.layers.0.mlp.experts.gate_up_proj", {2, 128, 576}}, {"model.layers.0.mlp.experts.down_proj_bias", {2, 576}}});
  const Module* both = find_module(stacks, layer + "mlp.experts.gate_up_proj");
  ASSERT_NE(both, nullptr);
  EXPECT_TRUE(both->kind == Kind::expert && both->n == 128 && both->experts == 2 && !both->interleaved);
  ASSERT_EQ(both->parts.size(), 4U);
  EXPECT_EQ(both->parts[3].path, layer + "mlp.experts.1.up_proj");
  EXPECT_NE(find_module(stacks, layer + "mlp.experts.down_proj"), nullptr);

  const Topology linears = described("gpt_oss", {{"model.layers.0.mlp.experts.1.up_proj.weight_packed", {1536, 288}}});
  EXPECT_NE(find_module(linears, layer + "mlp.experts.0.gate_proj"), nullptr);
  EXPECT_EQ(find_module(linears, layer + "mlp.experts.gate_up_proj"), nullptr);
}

}  // namespace
}  // namespace qb::arch
