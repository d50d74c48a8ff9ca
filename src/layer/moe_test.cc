#include "layer/moe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace qb::layer {
namespace {

struct Routed {
  std::vector<int32_t> chosen;
  std::vector<float> weights;
};
Routed routed(const Routing& r, const std::vector<float>& logits) {
  const auto rows = static_cast<int64_t>(logits.size()) / r.experts;
  Routed out{std::vector<int32_t>(static_cast<size_t>(rows * r.top)), std::vector<float>(static_cast<size_t>(rows * r.top))};
  RouteBuffers buffers;
  route(r, logits.data(), rows, out.chosen.data(), out.weights.data(), buffers);
  return out;
}

// Mixtral, Qwen: softmax over all experts, the weights of the chosen ones as they are or brought to a sum of one.
TEST(Route, Softmax) {
  const std::vector<float> logits{0.0F, 2.0F, -1.0F, 1.0F, 5.0F, 5.0F, 5.0F, -5.0F};
  const Routed plain = routed({.experts = 4, .top = 2}, logits);
  EXPECT_EQ(plain.chosen, (std::vector<int32_t>{1, 3, 0, 1}));  // of equal ones the first
  const float total = std::exp(0.0F) + std::exp(2.0F) + std::exp(-1.0F) + std::exp(1.0F);
  EXPECT_NEAR(plain.weights[0], std::exp(2.0F) / total, 1e-6F);
  EXPECT_NEAR(plain.weights[1], std::exp(1.0F) / total, 1e-6F);
  const Routed one = routed({.experts = 4, .top = 2, .normalize = true, .scale = 3}, logits);
  EXPECT_NEAR(one.weights[0], 3 * std::exp(2.0F) / (std::exp(2.0F) + std::exp(1.0F)), 1e-5F);
  EXPECT_NEAR(one.weights[0] + one.weights[1], 3.0F, 1e-5F);
}

// DeepSeek-V3: the bias decides who is chosen and does not count for the weights; groups are judged by their two best.
TEST(Route, SigmoidWithBiasAndGroups) {
  const std::vector<float> logits{3.0F, -3.0F, 1.0F, 0.9F, 2.0F, -4.0F};
  std::vector<float> bias(6, 0.0F);
  Routing r{.experts = 6, .top = 2, .score = Routing::Score::sigmoid, .bias = bias.data(), .groups = 3, .top_groups = 1, .judge = Routing::Judge::best_two};
  EXPECT_EQ(routed(r, logits).chosen, (std::vector<int32_t>{2, 3}));
  r.judge = Routing::Judge::best;
  EXPECT_EQ(routed(r, logits).chosen, (std::vector<int32_t>{0, 1}));
  r.judge = Routing::Judge::best_two;
  bias[5] = 2.0F;
  const Routed biased = routed(r, logits);
  EXPECT_EQ(biased.chosen, (std::vector<int32_t>{4, 5}));
  EXPECT_NEAR(biased.weights[1], 1 / (1 + std::exp(4.0F)), 1e-6F);
  r.groups = 1;
  bias[5] = 0.0F;
  EXPECT_EQ(routed(r, logits).chosen, (std::vector<int32_t>{0, 4}));
}

}  // namespace
}  // namespace qb::layer
