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
// squares of the outputs' errors, summed over all tokens. Where the inputs are a norm's, llm-compressor measures it behind attention, or behind the whole
// feed-forward part: that is `candidates`.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "calib/output_error.h"

namespace qb::calib {
namespace {

using Floats = std::vector<float>;

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

// What llm-compressor tries: nothing first, then steps from 0 to 1.
std::vector<Floats> candidates(std::span<const Weight> weights, const Statistics& inputs) {
  constexpr int steps = 18;
  constexpr Limits limits{.beside = 1e-4F, .least = 1e-4F, .most = std::numeric_limits<float>::max()};
  const Floats x = inputs.mean_magnitude();
  std::vector<double> sums(x.size());
  int64_t rows = 0;
  for (const Weight& w : weights) {
    if (w.recipe == nullptr) continue;
    add_sizes(w, 1e-6F, sums);
    rows += w.n;
  }
  const Floats sizes = means(sums, rows);
  std::vector<Floats> out{factors_at(x, nullptr, 0, limits)};
  for (int i = 0; i <= steps; ++i) out.push_back(factors_at(x, &sizes, static_cast<float>(i) / steps, limits));
  return out;
}

Result<Floats> together(std::span<const Weight> weights, Statistics& inputs, const Tools& tools) {
  std::vector<Floats> all = candidates(weights, inputs);
  const Floats products = doubled_products(inputs);
  std::vector<OutputError> losses;
  for (const Weight& w : weights)
    if (w.recipe != nullptr) losses.emplace_back(w, products, tools);
  Floats* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (Floats& factors : all) {
    const Floats inverse = inverse_of(factors);
    double loss = 0;
    for (OutputError& l : losses) loss += l.of(factors, inverse);
    if (!(loss < least)) continue;
    least = loss;
    best = &factors;
  }
  return best == nullptr ? Result<Floats>(not_finite()) : std::move(*best);
}

Result<Floats> one_by_one(std::span<const Weight> weights, Statistics& inputs, const Tools& tools) {
  constexpr int steps = 10;
  constexpr Limits limits{.beside = std::numeric_limits<float>::min(), .least = 1e-4F, .most = 1e4F};
  const Floats products = doubled_products(inputs), x = inputs.mean_magnitude();
  Floats mean(x.size());  // of the reciprocals
  int64_t count = 0;
  for (const Weight& w : weights) {
    if (w.recipe == nullptr) continue;
    std::vector<double> sums(x.size());
    add_sizes(w, std::numeric_limits<float>::min(), sums);
    const Floats sizes = means(sums, w.n);
    OutputError losses(w, products, tools);
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
                                    .balance = together,
                                    .candidates = candidates};
QB_ALGORITHM(awq_modelopt) = {.name = "awq",
                              .source = "arXiv 2306.00978; nvidia-modelopt 0.47, awq_lite",
                              .numerics = recipe::Numerics::modelopt,
                              .kind = Algorithm::Kind::factors,
                              .products = true,
                              .refuses = refuses,
                              .balance = one_by_one,
                              .taken_by = TakenBy::unfed};

}  // namespace qb::calib
