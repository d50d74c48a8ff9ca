#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

namespace qb::engine {
namespace {

std::map<int32_t, int> histogram(const Sampling& sampling, const std::vector<float>& logits, int draws) {
  Sampler sampler(sampling);
  std::map<int32_t, int> seen;
  for (int i = 0; i < draws; ++i) ++seen[sampler.next(logits)];
  return seen;
}

TEST(Sampler, GreedyTakesTheLowestOfTheBest) {
  EXPECT_EQ(Sampler({}).next(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(Sampler({}).next(std::vector<float>{NAN, -5, NAN, -4, NAN}), 3);
  EXPECT_EQ(Sampler({}).next(std::vector<float>{NAN, NAN}), 0);
  EXPECT_EQ(Sampler({}).next(std::vector<float>{-INFINITY, -INFINITY}), 0);
  EXPECT_EQ(Sampler({.temperature = 1}).next(std::vector<float>{0, INFINITY}), 1);
}

TEST(Sampler, DrawsByProbability) {
  const std::vector<float> logits{0.0F, 1.0F, NAN, 2.0F, -1.0F};
  const int draws = 200000;
  for (const double temperature : {0.5, 1.0, 2.0}) {
    const std::map<int32_t, int> seen = histogram({.temperature = temperature, .seed = 5}, logits, draws);
    double total = 0;
    for (const float l : logits)
      if (!std::isnan(l)) total += std::exp(static_cast<double>(l) / temperature);
    for (const int32_t id : {0, 1, 3, 4}) {
      const double p = std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) / temperature) / total;
      const auto it = seen.find(id);
      // Five standard deviations of the count.
      EXPECT_NEAR(it == seen.end() ? 0 : it->second, p * draws, 5 * std::sqrt(draws * p * (1 - p))) << "token " << id << " at " << temperature;
    }
    EXPECT_EQ(seen.count(2), 0U);
  }
}

TEST(Sampler, KeepsTheBest) {
  const std::vector<float> logits{1.0F, 4.0F, 3.0F, 2.0F, 3.5F};
  const auto ids = [&](const Sampling& s) {
    std::string out;
    for (const auto& [id, count] : histogram(s, logits, 5000)) out += std::to_string(id);
    return out;
  };
  EXPECT_EQ(ids({.temperature = 3}), "01234");
  EXPECT_EQ(ids({.temperature = 3, .top_k = 1}), "1");
  EXPECT_EQ(ids({.temperature = 3, .top_k = 3}), "124");
  EXPECT_EQ(ids({.temperature = 3, .top_k = 99}), "01234");
  EXPECT_EQ(ids({.temperature = 3, .top_p = 0}), "1");
  EXPECT_EQ(ids({.temperature = 3, .top_p = 0.0001}), "1");
  // Probabilities at temperature 1: 0.47, 0.28, 0.17, 0.06, 0.02.
  EXPECT_EQ(ids({.temperature = 1, .top_p = 0.5}), "14");
  EXPECT_EQ(ids({.temperature = 1, .top_p = 0.8}), "124");
  EXPECT_EQ(ids({.temperature = 1, .top_p = 0.8, .top_k = 2}), "14");
}

TEST(Sampler, TheSeedDecides) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 7919) % 1000) / 200.0F;
  const auto draw = [&](uint64_t seed) {
    Sampler s({.temperature = 1, .top_p = 0.95, .top_k = 200, .seed = seed});
    std::vector<int32_t> ids;
    for (int i = 0; i < 64; ++i) ids.push_back(s.next(logits));
    return ids;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

}  // namespace
}  // namespace qb::engine
