// A real model, SmolLM2-135M-Instruct in BF16, against transformers in float32 and llama.cpp's token ids.
//
// Goals: what a user gets is what the producers' own libraries give: token ids, prompts of chats, greedy continuations, the first steps' logits, perplexity.
// Needs the model (tools/make_smollm2.py; 269 MB, so not in the tree): QUANTBRIDGE_SMOLLM2, else build/models/SmolLM2-135M-Instruct; skips without it.
// Expected: tests/data/smollm2/expected.json; the text for the perplexity is Debian's /usr/share/common-licenses/GPL-3.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "bridge/runtime.h"
#include "engine/metrics.h"
#include "host/host.h"
#include "suite.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

const Json& expected() {
  static const Json document = suite::read_document(fs::path(QB_TEST_DATA) / "smollm2" / "expected.json");
  return document;
}

fs::path model_path() {
  const char* named = std::getenv("QUANTBRIDGE_SMOLLM2");
  return named != nullptr ? fs::path(named) : fs::path(QB_SOURCE_DIR) / "build" / "models" / "SmolLM2-135M-Instruct";
}

class SmolLM2 : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(model_path() / "config.json")) GTEST_SKIP() << "no model in " << model_path();
    ASSERT_TRUE(expected().is_object());
  }

  // The model as `run --reference` or `run` loads it.
  std::unique_ptr<Runtime> load(bool reference) {
    Result<Session> session = open_session(model_path());
    EXPECT_TRUE(session.ok()) << session.error().what;
    if (!session) return nullptr;
    RuntimeOptions options;
    options.threads = host::processors();
    options.context = 1024;
    options.model.reference = reference;
    options.model.linear.cpu = host::this_cpu();
    options.model.linear.policy.reference = reference;
    context_.isa = host::detect_isa();
    auto r = Runtime::load(std::move(*session), options, context_);
    EXPECT_TRUE(r.ok()) << (r ? "" : r.error().what);
    return r ? std::move(*r) : nullptr;
  }

  Context context_;
};

std::vector<int32_t> ids(const Json& list) {
  return list.get<std::vector<int32_t>>();
}

TEST_F(SmolLM2, TextsHaveTheTokenIdsOfLlamaCppAndDecodeToThemselves) {
  Result<Session> session = open_session(model_path());
  ASSERT_TRUE(session.ok()) << session.error().what;
  Result<text::Tokenizer> tokenizer = load_tokenizer(*session);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().what;
  for (const Json& t : expected()["texts"]) {
    const auto text = t["text"].get<std::string>();
    SCOPED_TRACE(text);
    Result<std::vector<int32_t>> got = tokenizer->encode(text, false);
    ASSERT_TRUE(got.ok()) << got.error().what;
    EXPECT_EQ(*got, ids(t["ids"]));
    Result<std::string> back = tokenizer->decode(*got, false);
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, text);
  }
}

TEST_F(SmolLM2, ChatsContinueGreedilyAsInTransformers) {
  const std::unique_ptr<Runtime> r = load(true);
  ASSERT_NE(r, nullptr);
  Result<text::Tokenizer> tokenizer = load_tokenizer(r->session);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().what;
  for (const Json& chat : expected()["chats"]) {
    std::vector<ChatMessage> messages;
    for (const Json& m : chat["messages"]) messages.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
    SCOPED_TRACE(messages.back().content);
    const Result<std::string> prompt = chat_prompt(r->session, messages);
    ASSERT_TRUE(prompt.ok()) << prompt.error().what;
    EXPECT_EQ(*prompt, chat["prompt"].get<std::string>());
    const Result<std::vector<int32_t>> prompt_ids = tokenizer->encode(*prompt, false);
    ASSERT_TRUE(prompt_ids.ok());
    ASSERT_EQ(*prompt_ids, ids(chat["prompt_ids"]));
    // transformers' ids end with the stop token where it was reached; ours end before it.
    std::vector<int32_t> greedy = ids(chat["greedy_ids"]);
    engine::GenerateOptions options{.max_new = static_cast<int64_t>(greedy.size()), .stop_ids = r->stop_ids};
    Result<engine::Generated> g = engine::generate(*r->model, *r->cache, *prompt_ids, options);
    ASSERT_TRUE(g.ok()) << g.error().what;
    if (g->finish_reason == std::string_view("stop")) greedy.pop_back();
    EXPECT_EQ(g->ids, greedy);

    // The five best logits of the first four steps, teacher-forced by the same ids.
    std::vector<int32_t> all = *prompt_ids;
    const auto continuation = ids(chat["greedy_ids"]);
    const Json& steps = chat["top5_first4"];
    all.insert(all.end(), continuation.begin(), continuation.begin() + static_cast<std::ptrdiff_t>(steps.size()) - 1);
    const std::vector<std::vector<int32_t>> chunks{all};
    auto scored = engine::score(*r->model, *r->cache, chunks, [&](size_t, std::span<const float> logits) {
      const size_t vocab = logits.size() / all.size();
      for (size_t step = 0; step < steps.size(); ++step)
        for (const Json& best : steps[step]) {
          const float got = logits[(prompt_ids->size() - 1 + step) * vocab + best[0].get<size_t>()];
          EXPECT_NEAR(static_cast<double>(got), best[1].get<double>(), 1e-3) << "step " << step << ", token " << best[0];
        }
      return true;
    });
    ASSERT_TRUE(scored.ok()) << scored.error().what;
  }
}

// transformers in float32: 23.198 over chunks of 512 run alone, the last short one dropped, the mean over positions 1..511 of each.
TEST_F(SmolLM2, PerplexityIsThatOfTransformers) {
  const std::string text = suite::read_bytes("/usr/share/common-licenses/GPL-3");
  if (text.empty()) GTEST_SKIP() << "no GPL-3 text on this system";
  const std::unique_ptr<Runtime> r = load(false);
  ASSERT_NE(r, nullptr);
  Result<text::Tokenizer> tokenizer = load_tokenizer(r->session);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().what;
  const Result<std::vector<int32_t>> all = tokenizer->encode(text, false);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->size(), 7639u);
  const auto chunks = engine::chunks_of(*all, 512);
  engine::Perplexity perplexity;
  const auto vocab = static_cast<size_t>(r->model->vocab());
  auto scored = engine::score(*r->model, *r->cache, chunks, [&](size_t index, std::span<const float> logits) {
    perplexity.add(logits, vocab, chunks[index]);
    return true;
  });
  ASSERT_TRUE(scored.ok()) << scored.error().what;
  EXPECT_EQ(perplexity.count(), 14 * 511);
  EXPECT_NEAR(perplexity.value(), 23.198, 23.198 * 0.005);
}

}  // namespace
}  // namespace qb
