#include "dialect/history.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace qb {
namespace {

Package with(const std::string& metadata) {
  Package p;
  p.files.push_back({"model.safetensors", 0, {{std::string(history_key), metadata}}});
  return p;
}

HistoryStep step(const std::string& to) {
  return {.by = "quantbridge 1",
          .did = "convert",
          .from = "modelopt",
          .producer = "modelopt 0.47.0",
          .to = to,
          .changes = {"a"},
          .repairs = {},
          .lost = {"b", "c"}};
}

TEST(History, ComesBack) {
  const std::vector<HistoryStep> back = read_history(with(history_metadata({step("dense"), step("gptq")})));
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(history_json(back[1]), history_json(step("gptq")));
  EXPECT_EQ(back[0].to, "dense");
}

TEST(History, IsBounded) {
  std::vector<HistoryStep> steps;
  for (int i = 0; i < 100; ++i) steps.push_back(step(std::to_string(i)));
  steps.back().lost.assign(1000, std::string(1000, 'x'));
  const std::string text = history_metadata(steps);
  EXPECT_LT(text.size(), 20'000U);
  const std::vector<HistoryStep> back = read_history(with(text));
  ASSERT_EQ(back.size(), 32U);
  EXPECT_EQ(back.front().to, "0");
  EXPECT_EQ(back.back().to, "99");
  EXPECT_EQ(back[16].changes.front(), "steps before this one are left out");
  ASSERT_EQ(back.back().lost.size(), 16U);
  EXPECT_EQ(back.back().lost.back(), "and 985 more");
  EXPECT_EQ(back.back().lost.front().size(), 400U);
}

TEST(History, AnythingElseIsNone) {
  for (const char* text : {"", "{}", "[", "[[[[[[]]]]]]", "3"}) EXPECT_TRUE(read_history(with(text)).empty()) << text;
  const std::vector<HistoryStep> odd = read_history(with(R"([3, {"by": 4, "did": "convert", "lost": [1, "x", {}], "changes": "y"}, "z"])"));
  ASSERT_EQ(odd.size(), 1U);
  EXPECT_EQ(odd[0].did, "convert");
  EXPECT_EQ(odd[0].by, "");
  EXPECT_EQ(odd[0].lost, std::vector<std::string>{"x"});
  EXPECT_TRUE(odd[0].changes.empty());
}

}  // namespace
}  // namespace qb
