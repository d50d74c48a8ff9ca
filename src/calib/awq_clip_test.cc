// Clipping is the search that it says, done here the long way: all outputs of all tokens, for every part.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "calib/test_support.h"
#include "num/codec.h"

namespace qb::calib {
namespace {

constexpr int64_t n = 12, k = 64, group = 16, tokens = 96;

// Weights with a few large ones where inputs are small, so that clamping pays.
Weight weight_of(const char* scheme, recipe::Numerics numerics) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(n * k));
  for (size_t i = 0; i < x.size(); ++i) x[i] = normal(random) / 8 * (i % 8 == 3 ? 4.0F : 1.0F);
  return bf16_weight(scheme, numerics, n, k, x);
}

std::vector<float> inputs() {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(tokens * k));
  for (size_t i = 0; i < x.size(); ++i) x[i] = normal(random) * (i % 8 == 3 ? 0.2F : 1.0F);
  return x;
}

std::vector<Made> clipped(std::span<const Weight> weights, int threads) {
  host::ThreadPool pool(threads);
  const Tools tools{pool, Isa::generic};
  Statistics seen(k, true, tools);
  const std::vector<float> x = inputs();
  seen.see(x.data(), tokens, k);
  for (const Algorithm* a : algorithms())
    if (a->name == "awq_clip") {
      Result<std::vector<Made>> made = a->solve(weights, seen, tools);
      EXPECT_TRUE(made.ok());
      if (made) return std::move(*made);
    }
  return {};
}

std::vector<float> numbers_of(const Weight& w) {
  std::vector<float> x(static_cast<size_t>(n * k));
  widen(w.numbers.data(), w.elem, n * k, x.data());
  return x;
}

// Of the outputs that a group of columns of a row contributes to.
double loss(const float* weight, const float* rounded, int64_t first, int64_t count, const std::vector<float>& x) {
  double sum = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    double off = 0;
    for (int64_t j = 0; j < count; ++j)
      off += static_cast<double>(x[static_cast<size_t>(t * k + first + j)]) * (static_cast<double>(rounded[j]) - static_cast<double>(weight[j]));
    sum += off * off;
  }
  return sum;
}

TEST(AwqClip, GroupsOfIntegersGetThePartWithTheLeastError) {
  const Weight w = weight_of("int4_g16", recipe::Numerics::modelopt);
  const std::vector<Made> made = clipped({&w, 1}, 2);
  ASSERT_EQ(made.size(), 1u);
  const std::vector<float> weights = numbers_of(w), x = inputs();
  std::vector<float> scales(static_cast<size_t>(n * k / group));
  ASSERT_EQ(made[0].scales.size(), scales.size() * 4);
  widen(made[0].scales.data(), Elem::f32, static_cast<int64_t>(scales.size()), scales.data());
  int clamped = 0;
  for (int64_t r = 0; r < n; ++r)
    for (int64_t g = 0; g < k / group; ++g) {
      const float* const row = &weights[static_cast<size_t>(r * k + g * group)];
      float amax = 0;
      for (int64_t j = 0; j < group; ++j) amax = std::max(amax, std::fabs(row[j]));
      const float scale = scales[static_cast<size_t>(r * (k / group) + g)];
      std::vector<float> ours, best;
      for (int64_t j = 0; j < group; ++j)
        ours.push_back(static_cast<float>(static_cast<int8_t>(made[0].codes[static_cast<size_t>(r * k + g * group + j)])) * scale);
      double least = INFINITY;
      for (int i = 0; i <= 10; ++i) {
        std::vector<float> rounded;
        const float tried = amax * static_cast<float>(0.5 + 0.05 * i) / 7;
        for (int64_t j = 0; j < group; ++j) rounded.push_back(std::clamp(std::nearbyint(row[j] / tried), -8.0F, 7.0F) * tried);
        least = std::min(least, loss(row, rounded.data(), g * group, group, x));
      }
      // Sums of 96 products in float32, squared.
      EXPECT_LE(loss(row, ours.data(), g * group, group, x), least * 1.001) << r << " " << g;
      clamped += scale < amax / 7 * 0.99F ? 1 : 0;
    }
  EXPECT_GT(clamped, n * k / group / 4);
  const std::vector<Made> again = clipped({&w, 1}, 1);
  EXPECT_EQ(again[0].codes, made[0].codes);
  EXPECT_EQ(again[0].scales, made[0].scales);
}

TEST(AwqClip, ZeroPointsStayAndTypesOfTwoLevelsShareWhatIsClamped) {
  for (const auto& [scheme, numerics] : {std::pair{"int4_g16", recipe::Numerics::llm_compressor},
                                         {"int4_g16_asym", recipe::Numerics::llm_compressor},
                                         {"nvfp4", recipe::Numerics::modelopt},
                                         {"nvfp4", recipe::Numerics::llm_compressor}}) {
    SCOPED_TRACE(scheme);
    Weight one = weight_of(scheme, numerics), other = one;
    for (size_t i = 1; i < other.numbers.size(); i += 32) other.numbers[i] = std::byte{0};  // some much smaller
    const std::vector<Weight> both{one, other};
    const std::vector<Made> made = clipped(both, 2);
    ASSERT_EQ(made.size(), 2u);
    const float amax = recipe::absmax(one.numbers.data(), one.elem, n * k, Isa::generic);
    const Made plain = make(one, one.numbers.data(), amax, Isa::generic);
    EXPECT_EQ(made[0].zeros, plain.zeros);
    EXPECT_EQ(made[0].codes.size(), plain.codes.size());
    EXPECT_EQ(made[0].scales.size(), plain.scales.size());
    if (!one.type.two_level()) continue;
    EXPECT_EQ(made[0].global, made[1].global);
    const float part = one.recipe->global_divides ? plain.global / made[0].global : made[0].global / plain.global;
    EXPECT_GE(part, 0.49F);
    EXPECT_LE(part, 1.01F);
  }
}

}  // namespace
}  // namespace qb::calib
