// Ranges that a histogram of magnitudes says: what lies above is clamped, so that what lies below gets finer steps.
//
// Source: HistogramCalibrator.compute_amax of ModelOpt 0.47. The largest magnitude becomes
//   percentile[:P]  the lower edge of the first bin up to whose upper edge P percent of all numbers lie (99.99); for 100 the last edge
//   mse             the center of a bin, from the 129th on: the one for which the sum over all bins of count * (center - what it is rounded to)^2 is least
//   entropy         the edge behind i bins, i from 128 on, for which the divergence of what is rounded from what was seen is least, and of equals the last.
//   Seen:
//                   i bins, the last with everything above. Rounded: as many groups of bins as the type has positive codes, in each of which all bins that are
//                   not empty have their mean. The first bin counts what the second does.
// Deviations: sums are float64; a percentile that lies in the first bin gives its upper edge in place of 0. Both ends of the range are that magnitude, as far
// as numbers of that sign were seen.
#include <algorithm>
#include <cmath>
#include <limits>

#include "calib/histogram.h"
#include "calib/range_observer.h"
#include "num/codec.h"

namespace qb::calib {
namespace {

constexpr int64_t first_tried = 128;

// The largest magnitude that stays, of a histogram with bins.
using Choose = float (*)(const Histogram&, const ir::QuantType&, double argument);

class OfHistogram final : public RangeObserver {
 public:
  OfHistogram(Choose choose, const ir::QuantType& type, double argument) : choose_(choose), type_(type), argument_(argument) {}

  void see(const float* x, int64_t rows, int64_t width) override {
    if (rows <= 0) return;
    const recipe::Range r = range_of(x, rows * width);
    all_.add(r);
    if (std::isfinite(r.least) && std::isfinite(r.most)) seen_.add(x, rows * width);
  }

  recipe::Range range() const override {
    if (all_.empty() || !std::isfinite(all_.least) || !std::isfinite(all_.most) || seen_.counts().empty()) return all_;
    const float most = choose_(seen_, type_, argument_);
    return {std::max(all_.least, -most), std::min(all_.most, most)};
  }

 private:
  Choose choose_;
  ir::QuantType type_;
  double argument_;
  recipe::Range all_;
  Histogram seen_;
};

float percentile(const Histogram& h, const ir::QuantType&, double percent) {
  int64_t below = 0, i = 0;
  const auto bins = static_cast<int64_t>(h.counts().size());
  if (percent >= 100) return h.edge(bins);
  for (; i < bins; ++i) {
    below += h.counts()[static_cast<size_t>(i)];
    if (static_cast<double>(below) / static_cast<double>(h.total()) >= percent / 100) break;
  }
  return h.edge(std::max<int64_t>(i, 1));
}

float rounded(const ir::QuantType& type, float x, float most) {
  if (is_integer_code(type.code)) {
    const float top = static_cast<float>((1 << (bits(type.code) - 1)) - 1), scale = top / most;
    return std::min(std::nearbyint(x * scale), top) / scale;
  }
  const float scale = 448.0F / most;
  return decode_e4m3(encode_e4m3_sat(x * scale)) * (1 / scale);
}

float mse(const Histogram& h, const ir::QuantType& type, double) {
  struct Bin {
    float center;
    double count;
  };
  std::vector<Bin> bins;
  for (size_t i = 0; i < h.counts().size(); ++i)
    if (h.counts()[i] != 0) bins.push_back({h.center(static_cast<int64_t>(i)), static_cast<double>(h.counts()[i])});
  float best = h.edge(static_cast<int64_t>(h.counts().size()));
  double least = std::numeric_limits<double>::infinity();
  for (int64_t i = first_tried; i < static_cast<int64_t>(h.counts().size()); ++i) {
    const float most = h.center(i);
    double sum = 0;
    for (const Bin& b : bins) {
      const double off = static_cast<double>(rounded(type, b.center, most) - b.center);
      sum += off * off * b.count;
      if (!(sum < least)) break;
    }
    if (!(sum < least)) continue;
    least = sum;
    best = most;
  }
  return best;
}

// Of `i` bins, the last of which holds what lies above too.
double divergence(const std::vector<double>& bins, int64_t i, int64_t codes, double above, double total) {
  const double step = static_cast<double>(i) / static_cast<double>(codes);
  std::vector<double> sums(static_cast<size_t>(codes)), filled(sums.size());
  std::vector<size_t> group(static_cast<size_t>(i));
  for (int64_t j = 0, g = 0; j < i; ++j) {
    while (g + 1 < codes && static_cast<double>(g + 1) * step <= static_cast<double>(j)) ++g;
    group[static_cast<size_t>(j)] = static_cast<size_t>(g);
    if (bins[static_cast<size_t>(j)] == 0) continue;
    sums[static_cast<size_t>(g)] += bins[static_cast<size_t>(j)];
    ++filled[static_cast<size_t>(g)];
  }
  double sum = 0;
  for (int64_t j = 0; j < i; ++j) {
    const auto at = static_cast<size_t>(j);
    const double seen = bins[at] + (j + 1 == i ? above : 0);
    if (seen == 0) continue;
    if (bins[at] == 0) return std::numeric_limits<double>::infinity();
    sum += seen / total * std::log(seen / total / (sums[group[at]] / filled[group[at]] / (total - above)));
  }
  return sum;
}

float entropy(const Histogram& h, const ir::QuantType& type, double) {
  std::vector<double> bins(h.counts().begin(), h.counts().end());
  bins[0] = bins[1];
  double total = 0, above = 0;
  for (const double b : bins) total += b;
  auto best = static_cast<int64_t>(bins.size());
  double least = std::numeric_limits<double>::infinity();
  for (int64_t i = best; i >= first_tried; --i) {
    const double d = divergence(bins, i, int64_t{1} << (bits(type.code) - 1), above, total);
    if (d < least) {
      least = d;
      best = i;
    }
    above += bins[static_cast<size_t>(i) - 1];
  }
  return h.edge(best);
}

std::string_view nothing(const ir::QuantType&) noexcept {
  return {};
}
bool one_scale(const ir::QuantType& t) noexcept {
  return t.block == ir::Block{0, 0} && !t.two_level();
}
std::string_view refuses_mse(const ir::QuantType& t) noexcept {
  return one_scale(t) && (is_integer_code(t.code) || t.code == Elem::e4m3) ? "" : "integers or E4M3 with one scale";
}
std::string_view refuses_entropy(const ir::QuantType& t) noexcept {
  return one_scale(t) && is_integer_code(t.code) ? "" : "integers with one scale";
}

template <Choose choose>
std::unique_ptr<RangeObserver> make(const ir::QuantType& type, double argument) {
  return std::make_unique<OfHistogram>(choose, type, argument);
}

constexpr std::string_view source = "nvidia-modelopt 0.47, HistogramCalibrator";

}  // namespace

QB_OBSERVER(percentile) = {.name = "percentile",
                           .source = source,
                           .numerics = {},
                           .argument = {.what = "how many percent of the numbers stay", .usual = 99.99, .least = 0, .most = 100},
                           .refuses = nothing,
                           .make = make<percentile>};
QB_OBSERVER(mse_modelopt) = {
    .name = "mse", .source = source, .numerics = recipe::Numerics::modelopt, .argument = {}, .refuses = refuses_mse, .make = make<mse>};
QB_OBSERVER(entropy) = {.name = "entropy", .source = source, .numerics = {}, .argument = {}, .refuses = refuses_entropy, .make = make<entropy>};

}  // namespace qb::calib
