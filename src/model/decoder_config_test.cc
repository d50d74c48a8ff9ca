#include "model/decoder_config.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "model/batch.h"

namespace qb::model {
namespace {

Json parsed(std::string_view text) {
  Json out;
  JsonError error;
  EXPECT_TRUE(parse_json(text, out, error)) << error.what;
  return out;
}

using Kind = DecoderRules::Windows;

// A config of four layers with the given keys added.
Result<DecoderConfig> read(const char* family, const char* more, int64_t head_dim = 64) {
  Json config = parsed(R"({"max_position_embeddings": 512, "rms_norm_eps": 1e-5})");
  const Json own = parsed(more);
  for (const auto& [key, value] : own.items()) config[key] = value;
  arch::Topology t;
  t.family = arch::find_family(family);
  t.layers = 4;
  t.heads = 4;
  t.kv_heads = 2;
  t.head_dim = head_dim;
  t.hidden = 256;
  const std::string_view f = family;
  if (f == "mistral") return read_decoder_config(config, t, {.windows = Kind::every_layer, .usual_window = 4096});
  if (f == "qwen2" || f == "qwen3") return read_decoder_config(config, t, {.windows = Kind::by_layer, .switched = true, .usual_window = 4096});
  if (f == "gemma2")
    return read_decoder_config(
        config, t,
        {.windows = Kind::by_layer, .usual_window = 4096, .full_every = 2, .activation = layer::Gate::gelu_tanh, .activation_key = "hidden_activation"});
  return read_decoder_config(config, t, {});
}

using Windows = std::vector<int64_t>;

// Defaults and meanings of the configuration classes of transformers 5.17.
TEST(DecoderConfig, Windows) {
  struct Case {
    const char *family, *keys;
    Windows windows;
  };
  for (
      const Case& c : {
          Case{"llama", R"({"sliding_window": 128})", {0, 0, 0, 0}},
          Case{"mistral", R"({"sliding_window": 128})", {128, 128, 128, 128}},
          Case{"mistral", R"({"sliding_window": null})", {0, 0, 0, 0}},
          Case{"mistral", "{}", {4096, 4096, 4096, 4096}},
          Case{"gemma2", R"({"sliding_window": 128})", {128, 0, 128, 0}},
          Case{"qwen2", R"({"sliding_window": 128, "max_window_layers": 2})", {0, 0, 0, 0}},
          Case{"qwen2", R"({"use_sliding_window": true, "sliding_window": 128, "max_window_layers": 3})", {0, 0, 0, 128}},
          Case{"qwen2", R"({"use_sliding_window": true, "sliding_window": 128})", {0, 0, 0, 0}},
          Case{"qwen3", R"({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0})", {0, 0, 0, 0}},
          Case{
              "qwen3",
              R"({"use_sliding_window": true, "sliding_window": 9, "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]})",
              {0, 9, 0, 9}},
      }) {
    auto r = read(c.family, c.keys);
    ASSERT_TRUE(r.ok()) << c.keys << ": " << r.error().what;
    EXPECT_EQ(r->windows, c.windows) << c.keys;
  }
}

TEST(DecoderConfig, WhatIsNotSupportedIsNamed) {
  struct Case {
    const char *family, *keys, *word;
  };
  for (const Case& c : {
           Case{"llama", R"({"hidden_act": "gelu"})", "gelu"},
           Case{"gemma2", R"({"hidden_activation": "silu"})", "silu"},
           Case{"llama", R"({"max_position_embeddings": null})", "max_position_embeddings"},
           Case{"llama", R"({"rms_norm_eps": "small"})", "rms_norm_eps"},
           Case{"llama", R"({"rope_scaling": {"type": "su"}})", "su"},
           Case{"mistral", R"({"sliding_window": 0})", "sliding_window"},
           Case{"qwen3", R"({"layer_types": ["full_attention"]})", "layer_types"},
           Case{"qwen3", R"({"layer_types": ["a", "a", "a", "chunked_attention"]})", "layer_types[0]"},
           Case{"qwen3", R"({"layer_types": ["full_attention", "full_attention", "full_attention", "sliding_attention"]})", "layer_types[3]"},
       }) {
    auto r = read(c.family, c.keys);
    ASSERT_FALSE(r.ok()) << c.keys;
    EXPECT_NE(r.error().what.find(c.word), std::string::npos) << r.error().what;
  }
  EXPECT_FALSE(read("llama", "{}", 512).ok());
}

TEST(DecoderConfig, ScaledPositions) {
  EXPECT_EQ(read("llama", "{}")->max_positions, 512);
  EXPECT_EQ(read("llama", R"({"rope_scaling": {"type": "dynamic", "factor": 2.5}})")->max_positions, 1280);
  EXPECT_EQ(read("llama", R"({"rope_scaling": {"type": "yarn", "factor": 4.0}})")->max_positions, 512);
}

class Batches : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = KvCache::make({2, 1, 4}, Elem::bf16, 6, arena);
    ASSERT_TRUE(made.ok()) << made.error().what;
    cache = *made;
  }
  Result<void> check() { return check_batch({.ids = ids, .positions = positions, .offsets = offsets, .table = table}, cache, 10, 100); }

  host::Arena arena;
  KvCache cache;
  std::vector<int32_t> first{0, 1}, second{5};
  std::vector<int32_t> ids{1, 2, 3, 9, 4}, positions{31, 32, 33, 0, 1}, offsets{0, 3, 5};
  std::vector<std::span<const int32_t>> table{first, second};
};

TEST_F(Batches, EveryPromiseIsChecked) {
  EXPECT_TRUE(check().ok());
  const auto breaks = [&](auto& where, auto value) {
    const auto kept = where;
    where = value;
    EXPECT_FALSE(check().ok());
    where = kept;
  };
  breaks(ids[3], 10);
  breaks(ids[3], -1);
  breaks(positions[1], 31);
  breaks(positions, std::vector<int32_t>{31, 32, 33, -1, 0});
  breaks(positions, std::vector<int32_t>{98, 99, 100, 0, 1});
  breaks(positions, std::vector<int32_t>{62, 63, 64, 0, 1});  // a third block
  breaks(offsets, std::vector<int32_t>{0, 3});
  breaks(offsets, std::vector<int32_t>{0, 5, 5});
  breaks(offsets, std::vector<int32_t>{0, 3, 4});
  breaks(offsets, std::vector<int32_t>{1, 3, 5});
  breaks(offsets, std::vector<int32_t>{0, 9, 5});
  breaks(second[0], 6);
  breaks(second[0], -1);
  EXPECT_TRUE(check().ok());
}

TEST_F(Batches, PassesCutAnywhere) {
  const Batch batch{.ids = ids, .positions = positions, .offsets = offsets, .table = table};
  BatchPass pass;
  pass.cut(batch, 2, 4);
  ASSERT_EQ(pass.runs.size(), 2U);
  EXPECT_EQ(pass.runs[0].first_row, 0);
  EXPECT_EQ(pass.runs[0].first_position, 33);
  EXPECT_EQ(pass.runs[0].count, 1);
  EXPECT_EQ(pass.runs[1].first_row, 1);
  EXPECT_EQ(pass.runs[1].first_position, 0);
  EXPECT_EQ(pass.runs[1].count, 1);
  EXPECT_EQ(pass.wanted, std::vector<int64_t>{0});
  pass.cut(batch, 0, 5);
  EXPECT_EQ(pass.wanted, (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(rope_length(batch, 0), 34);
}

TEST(KvCache, Sizes) {
  host::Arena arena;
  EXPECT_FALSE(KvCache::make({2, 1, 4}, Elem::i8, 6, arena).ok());
  EXPECT_FALSE(KvCache::make({2, 1, 4}, Elem::f32, 0, arena).ok());
  EXPECT_FALSE(KvCache::make({int64_t{1} << 40, int64_t{1} << 40, 4}, Elem::f32, 1, arena).ok());
  auto c = KvCache::make({2, 3, 4}, Elem::e4m3, 5, arena);
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(c->bytes(), 5U * 2 * 2 * 32 * 3 * 4);
  EXPECT_EQ(c->values(1, 4) + 32 * 3 * 4, c->keys(0, 0) + c->bytes());
}

}  // namespace
}  // namespace qb::model
