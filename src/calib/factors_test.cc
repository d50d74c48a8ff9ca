// Factors that AWQ and SmoothQuant find: of a matrix with a column whose inputs are large, which is what they are for.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "calib/test_support.h"

namespace qb::calib {
namespace {

constexpr int64_t n = 32, k = 64, tokens = 128, large = 17;

Weight weight_of(const char* scheme, recipe::Numerics numerics) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(n * k));
  for (float& v : x) v = normal(random) / 8;
  return bf16_weight(scheme, numerics, n, k, x);
}

std::vector<float> inputs() {
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(tokens * k));
  for (size_t i = 0; i < x.size(); ++i) x[i] = normal(random) * (i % k == large ? 40.0F : 1.0F);
  return x;
}

std::vector<float> factors(std::string_view name, const Weight& w, int threads = 2) {
  host::ThreadPool pool(threads);
  const Tools tools{pool, Isa::generic};
  for (const Algorithm* a : algorithms()) {
    if (a->name != name || *a->numerics != w.recipe->numerics) continue;
    Statistics seen(k, a->products, tools);
    const std::vector<float> x = inputs();
    seen.see(x.data(), tokens, k);
    const Result<std::vector<float>> made = a->balance({&w, 1}, seen, tools);
    EXPECT_TRUE(made.ok());
    return made ? *made : std::vector<float>();
  }
  ADD_FAILURE() << name;
  return {};
}

TEST(Factors, AwqMakesColumnsOfLargeInputsLarger) {
  for (const auto& [scheme, numerics] : {std::pair{"int4_g32", recipe::Numerics::llm_compressor},
                                         {"int4_g32_asym", recipe::Numerics::llm_compressor},
                                         {"int4_g32", recipe::Numerics::modelopt},
                                         {"nvfp4", recipe::Numerics::modelopt}}) {
    SCOPED_TRACE(scheme);
    const std::vector<float> f = factors("awq", weight_of(scheme, numerics));
    ASSERT_EQ(f.size(), static_cast<size_t>(k));
    for (size_t j = 0; j < f.size(); ++j) EXPECT_TRUE(j == large || f[large] > 1.5F * f[j]) << j;
    EXPECT_EQ(f, factors("awq", weight_of(scheme, numerics), 1));
  }
}

TEST(Factors, SmoothQuantIsItsFormula) {
  const Weight w = weight_of("int8_channel", recipe::Numerics::llm_compressor);
  std::vector<float> weights(static_cast<size_t>(n * k));
  widen(w.numbers.data(), w.elem, n * k, weights.data());
  const std::vector<float> x = inputs();
  for (const auto& [name, strength] : {std::pair{"smoothquant", 0.5}, {"smoothquant_80", 0.8}}) {
    const std::vector<float> f = factors(name, w);
    for (size_t j = 0; j < static_cast<size_t>(k); ++j) {
      double least = 0, most = 0, size = 0;
      for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
        least = std::min(least, static_cast<double>(x[t * k + j]));
        most = std::max(most, static_cast<double>(x[t * k + j]));
      }
      for (size_t r = 0; r < static_cast<size_t>(n); ++r) size = std::max(size, std::abs(static_cast<double>(weights[r * k + j])));
      const double wanted = std::pow(most - least, strength) / std::pow(2 * size, 1 - strength);
      EXPECT_NEAR(static_cast<double>(f[j]) / wanted, 1, 1e-5);
    }
  }
}

TEST(Factors, ModelOptsSmoothQuantGoesByInputsAlone) {
  const std::vector<float> f = factors("smoothquant", weight_of("int8_channel", recipe::Numerics::modelopt)), x = inputs();
  for (size_t j = 0; j < static_cast<size_t>(k); ++j) {
    float most = 0;
    for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) most = std::max(most, std::fabs(x[t * k + j]));
    EXPECT_NEAR(f[j] / most, 1, 1e-6);
  }
}

}  // namespace
}  // namespace qb::calib
