// AWQ: columns that see large inputs are made larger before they are rounded, so that less of them is lost, by factors for which the error of the outputs is
// least among a few.
//
// Source: Lin et al., arXiv 2306.00978, as two producers compute it.
//   llm-compressor 0.14: x^r / (w^(1-r) + 1e-4), at least 1e-4, with x the mean magnitude of a column's inputs and w that of its weights as parts of the
//   largest
//     in their block (+ 1e-6), for 19 r from 0 to 1, and x^0; one r for all weights that read the same inputs. Factors go into the norm or the rows before
//     them.
//   ModelOpt 0.47, awq_lite: x^r / (w^(1-r) + the least normal number), from 1e-4 to 1e4, for r in steps of a tenth; each weight has its own r, and weights
//   that
//     read the same inputs get the mean of their reciprocals.
// Both are divided by the root of the product of the largest and the least. The error is d (x^T x) d^T over all rows, with d what a weight has lost: the
// squares of the outputs' errors, summed over all tokens. llm-compressor measures it behind attention and behind the whole feed-forward part where the inputs
// are a norm's; here it is always that of the linears' own outputs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "calib/algorithm.h"
#include "exec/ops.h"

namespace qb::calib {
namespace {

using Floats = std::vector<float>;

constexpr int64_t depth_together = 128, rows_together = 32;

// Twice x^T x right of its diagonal, 0 left of it: d times it times d^T is what d (x^T x) d^T is.
Floats doubled(Statistics& inputs) {
  Floats h = inputs.take_products();
  const auto k = static_cast<size_t>(inputs.width());
  for (size_t i = 0; i < k; ++i) {
    std::fill_n(h.begin() + static_cast<std::ptrdiff_t>(i * k), i, 0.0F);
    for (size_t j = i + 1; j < k; ++j) h[i * k + j] *= 2;
  }
  return h;
}

// The squares of what the outputs of a weight lose when it is multiplied by these factors, rounded, and its inputs multiplied by `inverse`.
class Losses {
 public:
  Losses(const Weight& w, const Floats& products, const Tools& tools) : w_(w), products_(products), tools_(tools), scaled_(w.numbers.size()) {}

  double of(const Floats& factors, const Floats& inverse) {
    const int64_t step = std::lcm(rows_together, recipe::row_multiple(*w_.recipe, w_.type));
    tools_.pool.ranges(w_.n, step, [&](int64_t begin, int64_t end) {
      scale_columns(w_.numbers.data() + at(begin), w_.elem, end - begin, factors, scaled_.data() + at(begin));
    });
    const float amax = w_.recipe->needs_amax ? recipe::absmax(scaled_.data(), w_.elem, w_.n * w_.k, tools_.isa) : 0;
    std::vector<double> sums(static_cast<size_t>((w_.n + step - 1) / step));  // added in their order, whoever makes them
    tools_.pool.ranges(w_.n, step, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += step)
        sums[static_cast<size_t>(first / step)] = rows(first, std::min(first + step, w_.n), inverse, amax);
    });
    return std::accumulate(sums.begin(), sums.end(), 0.0);
  }

 private:
  size_t at(int64_t row) const { return static_cast<size_t>(row * w_.k * bits(w_.elem) / 8); }

  double rows(int64_t first, int64_t last, const Floats& inverse, float amax) const {
    const int64_t count = last - first, k = w_.k;
    Weight part{.path = {}, .n = count, .k = k, .elem = w_.elem, .numbers = {}, .recipe = w_.recipe, .type = w_.type};
    const Made made = make(part, scaled_.data() + at(first), amax, tools_.isa);
    Floats lost(static_cast<size_t>(count * k)), sums(lost.size()), plain(static_cast<size_t>(k));
    const prog::Dequantize op{.type = w_.type,
                              .code = 0,
                              .scale = 1,
                              .global = w_.type.two_level() ? 2 : -1,
                              .scale_form = ir::ScaleForm::multiply,
                              .global_form = w_.recipe->global_divides ? ir::ScaleForm::divide : ir::ScaleForm::multiply,
                              .zero = made.zeros.empty() ? -1 : 3};
    const Result<void> done = ops::dequantize({.op = op,
                                               .scale_elem = w_.recipe->scale_elem(w_.elem),
                                               .global_elem = Elem::f32,
                                               .code = made.codes.data(),
                                               .scale = made.scales.data(),
                                               .global = w_.type.two_level() ? reinterpret_cast<const std::byte*>(&made.global) : nullptr,
                                               .zero = made.zeros.empty() ? nullptr : made.zeros.data(),
                                               .out = reinterpret_cast<std::byte*>(lost.data()),
                                               .rows = count,
                                               .cols = k});
    if (!done) return std::numeric_limits<double>::quiet_NaN();
    for (int64_t r = 0; r < count; ++r) {
      widen(w_.numbers.data() + at(first + r), w_.elem, k, plain.data());
      for (size_t j = 0; j < plain.size(); ++j) {
        float& d = lost[static_cast<size_t>(r * k) + j];
        d = d * inverse[j] - plain[j];
      }
    }
    for (int64_t b = 0; b < k; b += depth_together)
      add_product({.y = sums.data() + b,
                   .y_row = k,
                   .e = lost.data() + b,
                   .e_row = k,
                   .e_depth = 1,
                   .u = products_.data() + b * k + b,
                   .u_row = k,
                   .rows = count,
                   .depth = std::min(depth_together, k - b),
                   .columns = k - b},
                  tools_.isa);
    return std::inner_product(lost.begin(), lost.end(), sums.begin(), 0.0, std::plus<>(),
                              [](float d, float s) { return static_cast<double>(d) * static_cast<double>(s); });
  }

  const Weight& w_;
  const Floats& products_;
  const Tools& tools_;
  std::vector<std::byte> scaled_;
};

// Adds to `sums` what a column's weights are of the largest in their block, over the rows.
void add_sizes(const Weight& w, float beside, std::vector<double>& sums) {
  const int64_t group = w.type.block.cols > 0 ? w.type.block.cols : w.k;
  Floats row(static_cast<size_t>(w.k));
  for (int64_t r = 0; r < w.n; ++r) {
    widen(w.numbers.data() + static_cast<size_t>(r * w.k * bits(w.elem) / 8), w.elem, w.k, row.data());
    for (int64_t begin = 0; begin < w.k; begin += group) {
      const int64_t end = std::min(begin + group, w.k);
      float most = 0;
      for (int64_t j = begin; j < end; ++j) most = std::max(most, std::fabs(row[static_cast<size_t>(j)]));
      for (int64_t j = begin; j < end; ++j) sums[static_cast<size_t>(j)] += static_cast<double>(std::fabs(row[static_cast<size_t>(j)]) / (most + beside));
    }
  }
}

Floats means(const std::vector<double>& sums, int64_t rows) {
  Floats out;
  for (const double s : sums) out.push_back(static_cast<float>(s / static_cast<double>(rows)));
  return out;
}

struct Limits {
  float beside, least, most;
};

// x^ratio / (w^(1-ratio) + beside) between the limits, brought to a middle of 1. Without w: x^ratio.
Floats factors_at(const Floats& x, const Floats* w, float ratio, const Limits& limits) {
  Floats s(x.size());
  for (size_t j = 0; j < s.size(); ++j) {
    const float size = w == nullptr ? 1.0F : std::pow((*w)[j], 1 - ratio) + limits.beside;
    s[j] = std::clamp(std::pow(x[j], ratio) / size, limits.least, limits.most);
  }
  const auto [least, most] = std::minmax_element(s.begin(), s.end());
  const float middle = std::sqrt(*most * *least);
  for (float& f : s) {
    f /= middle;
    if (!std::isfinite(f) || f <= 0) f = 1;
  }
  return s;
}

Floats inverse_of(const Floats& factors) {
  Floats out;
  for (const float f : factors) out.push_back(1 / f);
  return out;
}

Error not_finite() {
  return {Errc::bad_input, "what flows into it, or what its outputs lose, is not finite"};
}

Result<Floats> together(std::span<const Weight> weights, Statistics& inputs, const Tools& tools) {
  constexpr int steps = 18;
  constexpr Limits limits{.beside = 1e-4F, .least = 1e-4F, .most = std::numeric_limits<float>::max()};
  const Floats products = doubled(inputs), x = inputs.mean_magnitude();
  std::vector<double> sums(x.size());
  std::vector<Losses> losses;
  int64_t rows = 0;
  for (const Weight& w : weights) {
    if (w.recipe == nullptr) continue;
    add_sizes(w, 1e-6F, sums);
    rows += w.n;
    losses.emplace_back(w, products, tools);
  }
  const Floats sizes = means(sums, rows);
  Floats best;
  double least = std::numeric_limits<double>::infinity();
  for (int i = -1; i <= steps; ++i) {
    Floats factors = i < 0 ? factors_at(x, nullptr, 0, limits) : factors_at(x, &sizes, static_cast<float>(i) / steps, limits);
    const Floats inverse = inverse_of(factors);
    double loss = 0;
    for (Losses& l : losses) loss += l.of(factors, inverse);
    if (!(loss < least)) continue;
    least = loss;
    best = std::move(factors);
  }
  return best.empty() ? Result<Floats>(not_finite()) : best;
}

Result<Floats> one_by_one(std::span<const Weight> weights, Statistics& inputs, const Tools& tools) {
  constexpr int steps = 10;
  constexpr Limits limits{.beside = std::numeric_limits<float>::min(), .least = 1e-4F, .most = 1e4F};
  const Floats products = doubled(inputs), x = inputs.mean_magnitude();
  Floats mean(x.size());  // of the reciprocals
  int64_t count = 0;
  for (const Weight& w : weights) {
    if (w.recipe == nullptr) continue;
    std::vector<double> sums(x.size());
    add_sizes(w, std::numeric_limits<float>::min(), sums);
    const Floats sizes = means(sums, w.n);
    Losses losses(w, products, tools);
    Floats best;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i <= steps; ++i) {
      Floats inverse = inverse_of(factors_at(x, &sizes, static_cast<float>(i) / steps, limits));
      const double loss = losses.of(inverse_of(inverse), inverse);
      if (!(loss < least)) continue;
      least = loss;
      best = std::move(inverse);
    }
    if (best.empty()) return not_finite();
    for (size_t j = 0; j < mean.size(); ++j) mean[j] += best[j];
    ++count;
  }
  for (float& m : mean) m /= static_cast<float>(count);
  return inverse_of(mean);
}

std::string_view refuses(const ir::QuantType& t) noexcept {
  return t.block == ir::Block{0, 0} && !t.two_level() ? "weights with a scale for each row, group or block" : "";
}

}  // namespace

QB_ALGORITHM(awq_llm_compressor) = {.name = "awq",
                                    .source = "arXiv 2306.00978; llm-compressor 0.14, AWQModifier",
                                    .numerics = recipe::Numerics::llm_compressor,
                                    .kind = Algorithm::Kind::factors,
                                    .products = true,
                                    .refuses = refuses,
                                    .balance = together};
QB_ALGORITHM(awq_modelopt) = {.name = "awq",
                              .source = "arXiv 2306.00978; nvidia-modelopt 0.47, awq_lite",
                              .numerics = recipe::Numerics::modelopt,
                              .kind = Algorithm::Kind::factors,
                              .products = true,
                              .refuses = refuses,
                              .balance = one_by_one,
                              .taken_by = TakenBy::unfed};

}  // namespace qb::calib
