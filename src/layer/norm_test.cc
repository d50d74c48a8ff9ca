#include "layer/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "host/host.h"
#include "layer/activation.h"
#include "layer/exp.h"

namespace qb::layer {
namespace {

std::vector<float> numbers(size_t count, uint32_t seed, float size) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, size);
  std::vector<float> v(count);
  for (float& x : v) x = normal(random);
  return v;
}

TEST(RmsNorm, IsTheFormula) {
  host::ThreadPool pool(3), one(1);
  for (const size_t n : {1U, 5U, 16U, 17U, 128U, 1000U}) {
    const size_t rows = 40;
    const std::vector<float> x = numbers(rows * n, 1, 3), w = numbers(n, 2, 1);
    std::vector<float> y(x.size()), alone(x), in_place(x);
    rms_norm(x.data(), w.data(), 1e-5F, static_cast<int64_t>(rows), static_cast<int64_t>(n), y.data(), host::detect_isa(), pool);
    rms_norm(alone.data(), w.data(), 1e-5F, static_cast<int64_t>(rows), static_cast<int64_t>(n), alone.data(), Isa::generic, one);
    EXPECT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0);
    for (size_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[r * n + i]) * static_cast<double>(x[r * n + i]);
      const double scale = 1 / std::sqrt(sum / static_cast<double>(n) + 1e-5);
      for (size_t i = 0; i < n; ++i) {
        const double want = static_cast<double>(w[i]) * static_cast<double>(x[r * n + i]) * scale;
        ASSERT_NEAR(y[r * n + i], want, 1e-6 * (1 + std::abs(want)));
      }
    }
  }
}

TEST(Exp, IsWithinTwoUlp) {
  double worst = 0;
  for (float x = -87.0F; x <= 88.0F; x += 0.00137F) {
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(exp_f32(x)) / want - 1));
  }
  EXPECT_LE(worst, 2 * 0x1p-23);
  EXPECT_EQ(exp_f32(0.0F), 1.0F);
  EXPECT_EQ(exp_f32(-100.0F), 0.0F);
  EXPECT_EQ(exp_f32(-INFINITY), 0.0F);
  EXPECT_EQ(exp_f32(1000.0F), exp_f32(88.0F));
  EXPECT_TRUE(std::isnan(exp_f32(NAN)));
}

TEST(GateMul, IsTheFormula) {
  host::ThreadPool pool(3), one(1);
  constexpr int64_t rows = 7, n = 2861;
  const std::vector<float> both = numbers(2 * rows * n, 5, 8);  // rows of a gate and an up part
  const auto formula = [](Gate kind, double g, double y) {
    switch (kind) {
      case Gate::silu:
        return g / (1 + std::exp(-g)) * y;
      case Gate::gelu_tanh:
        return 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * y;
      case Gate::clamped:
        break;
    }
    const double x = std::min(g, 7.0);
    return x / (1 + std::exp(-1.702 * x)) * (std::clamp(y, -7.0, 7.0) + 1);
  };
  for (const Gate kind : {Gate::silu, Gate::gelu_tanh, Gate::clamped}) {
    std::vector<float> out(rows * n), alone(rows * n), in_place(rows * n), up(rows * n);
    const GateArgs args{.gate = kind, .x = both.data(), .up = both.data() + n, .rows = rows, .n = n, .stride = 2 * n, .out = out.data()};
    gate_mul(args, host::detect_isa(), pool);
    GateArgs other = args;
    other.out = alone.data();
    gate_mul(other, Isa::generic, one);
    EXPECT_EQ(std::memcmp(out.data(), alone.data(), out.size() * sizeof(float)), 0);
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < n; ++i) {
        in_place[r * n + i] = both[2 * r * n + i];
        up[r * n + i] = both[(2 * r + 1) * n + i];
        const double g = static_cast<double>(in_place[r * n + i]), y = static_cast<double>(up[r * n + i]);
        const double want = formula(kind, g, y);
        ASSERT_NEAR(out[r * n + i], want, 1e-6 * (1e-2 + std::abs(want)) * (1 + std::abs(g)));
      }
    gate_mul({.gate = kind, .x = in_place.data(), .up = up.data(), .rows = rows, .n = n, .stride = n, .out = in_place.data()}, host::detect_isa(), pool);
    EXPECT_EQ(std::memcmp(out.data(), in_place.data(), out.size() * sizeof(float)), 0);
    float huge[] = {-1000.0F, 1000.0F, NAN};
    const float ones[] = {1.0F, 1.0F, 1.0F};
    gate_mul({.gate = kind, .x = huge, .up = ones, .rows = 1, .n = 3, .stride = 3, .out = huge}, Isa::generic, one);
    EXPECT_NEAR(huge[0], 0.0F, 1e-30F);
    EXPECT_FLOAT_EQ(huge[1], static_cast<float>(formula(kind, 1000, 1)));
    EXPECT_TRUE(std::isnan(huge[2]));
  }
}

}  // namespace
}  // namespace qb::layer
