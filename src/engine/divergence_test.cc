#include "engine/divergence.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/metrics.h"

namespace qb::engine {
namespace {

TEST(Divergence, IsThatOfTheComparison) {
  std::mt19937 rng(1);
  std::normal_distribution<float> logit(0, 4);
  host::ThreadPool one(1), two(2);
  for (const size_t vocab : {size_t{3}, size_t{256}, size_t{1003}}) {
    constexpr size_t rows = 7;
    std::vector<float> truth(rows * vocab);
    for (float& x : truth) x = logit(rng);
    Divergence d(one, Isa::generic), spread(two, Isa::generic);
    d.begin(truth, vocab);
    spread.begin(truth, vocab);
    EXPECT_EQ(d.of(truth), 0);
    for (const float noise : {1e-3F, 0.1F, 3.0F}) {
      std::vector<float> other = truth;
      for (float& x : other) x += noise * logit(rng) + 5;  // what all have more changes nothing
      Comparison expected;
      expected.add(other, truth, vocab);
      // exp_f32 and the probabilities are off by some 2^-23 of each term.
      EXPECT_NEAR(d.of(other), expected.kl, rows * 1e-6 + 1e-4 * expected.kl) << vocab << " " << noise;
      EXPECT_EQ(spread.of(other), d.of(other));
    }
  }
}

TEST(Divergence, OfOtherModelsAltogether) {
  host::ThreadPool pool(1);
  const std::vector<float> truth{0, -100, 40}, other{60, -100, -40};
  Divergence d(pool, Isa::generic);
  d.begin(truth, 3);
  EXPECT_NEAR(d.of(other), 100, 1e-3);
}

}  // namespace
}  // namespace qb::engine
