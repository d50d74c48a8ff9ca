#include "engine/divergence.h"

#include <algorithm>
#include <cmath>

#include "engine/metrics.h"
#include "layer/exp.h"
#include "recipe/loops.h"

namespace qb::engine {
namespace {

// Numbers are made for so many words at a time and added in double.
constexpr int64_t words = 256;

struct Exponentials {  // exp(x - top)
  static QB_INLINE void run(const float* x, float top, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = layer::exp_f32(x[i] - top);
  }
};

struct Differences {  // p d
  static QB_INLINE void run(const float* p, const float* x, const float* y, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = p[i] * (y[i] - x[i]);
  }
};

struct Growth {  // p (exp(d - c) - 1)
  static QB_INLINE void run(const float* p, const float* x, const float* y, float c, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = p[i] * (layer::exp_f32((y[i] - x[i]) - c) - 1.0F);
  }
};

double sum_of(const float* x, int64_t count) {
  double sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (int64_t l = 0; l < 4; ++l) sums[l] += static_cast<double>(x[i + l]);
  for (; i < count; ++i) sums[0] += static_cast<double>(x[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The sum of f(begin, count, out), some words at a time.
template <class F>
double sum_over(int64_t count, const F& f) {
  float out[words];
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += words) {
    const int64_t n = std::min(words, count - begin);
    f(begin, n, out);
    sum += sum_of(out, n);
  }
  return sum;
}

}  // namespace

void Divergence::begin(std::span<const float> logits, size_t vocab) {
  truth_ = logits;
  vocab_ = vocab;
  probabilities_.resize(logits.size());
  rows_.resize(logits.size() / vocab);
  const auto n = static_cast<int64_t>(vocab);
  pool_.ranges(static_cast<int64_t>(rows_.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* const x = truth_.data() + row * n;
      float* const p = probabilities_.data() + row * n;
      const float top = *std::max_element(x, x + n);
      const double sum = sum_over(n, [&](int64_t begin, int64_t count, float* out) {
        recipe::run_at<Exponentials>(isa_, x + begin, top, count, out);
        std::copy_n(out, count, p + begin);
      });
      const auto scale = static_cast<float>(1 / sum);
      for (int64_t i = 0; i < n; ++i) p[i] *= scale;
    }
  });
}

double Divergence::of(std::span<const float> logits) {
  const auto n = static_cast<int64_t>(vocab_);
  pool_.ranges(static_cast<int64_t>(rows_.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float *x = truth_.data() + row * n, *y = logits.data() + row * n, *p = probabilities_.data() + row * n;
      const double c =
          sum_over(n, [&](int64_t begin, int64_t count, float* out) { recipe::run_at<Differences>(isa_, p + begin, x + begin, y + begin, count, out); });
      const auto near = static_cast<float>(c);
      const double growth =
          sum_over(n, [&](int64_t begin, int64_t count, float* out) { recipe::run_at<Growth>(isa_, p + begin, x + begin, y + begin, near, count, out); });
      // Models that have nothing to do with each other: exponentials may be too large, and differences are large enough.
      constexpr double far = 1000;
      if (!(growth < far)) {
        rows_[static_cast<size_t>(row)] = log_sum_exp({y, vocab_}) - log_sum_exp({x, vocab_}) - c;
        continue;
      }
      // log sum p exp(d - near) - (c - near); probabilities sum up to 1 but for rounding.
      rows_[static_cast<size_t>(row)] = std::max(std::log1p(growth) - (c - static_cast<double>(near)), 0.0);
    }
  });
  double sum = 0;
  for (const double r : rows_) sum += r;
  return sum;
}

}  // namespace qb::engine
