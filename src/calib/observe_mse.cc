// mse, as llm-compressor has it: each sample's range is made smaller in steps while that makes the error of rounding it less; then a moving average.
//
// Source: the observer "mse" of llm-compressor 0.14 on the CPU. The least and the largest number are both multiplied by 1 - i / 100, i from 0 to 19; the scale
// is the one of such a range, the error the sum of |rounded - x|^2.4 over the sample; the first i with the least error wins, and five in a row without a better
// one end the search. The first sample's range, then 0.99 of the old and 0.01 of the new one. Memory: the numbers of one sample. One deviation: sums are
// float64.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "calib/range_observer.h"
#include "num/codec.h"

namespace qb::calib {
namespace {

constexpr int steps = 20, patience = 5;
constexpr float power = 2.4F, kept = static_cast<float>(1 - 0.01), added = static_cast<float>(0.01);
constexpr auto producer = recipe::Numerics::llm_compressor;

class ShrunkBySample final : public RangeObserver {
 public:
  explicit ShrunkBySample(const ir::QuantType& type) : type_(type) {}

  void see(const float* x, int64_t rows, int64_t width) override { sample_.insert(sample_.end(), x, x + rows * width); }

  void sample_done() override {
    if (sample_.empty()) return;
    const recipe::Range r = best();
    average_ = average_.empty() ? r : recipe::Range{average_.least * kept + r.least * added, average_.most * kept + r.most * added};
    sample_.clear();
  }
  recipe::Range range() const override { return average_; }

 private:
  recipe::Range best() const {
    const recipe::Range whole = range_of(sample_.data(), static_cast<int64_t>(sample_.size()));
    recipe::Range out = whole;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0, without = 0; i < steps && without < patience; ++i) {
      const auto part = static_cast<float>(1 - i / 100.0);
      const recipe::Range r{whole.least * part, whole.most * part};
      const std::optional<recipe::StaticScale> scale = recipe::static_scale(type_, producer, r);
      if (!scale) return whole;
      const double e = error(*scale, least);
      if (e < least) {
        least = e;
        out = r;
        without = 0;
      } else {
        ++without;
      }
    }
    return out;
  }

  // Of the whole sample, or of a part of it that has no less than `enough`.
  double error(const recipe::StaticScale& s, double enough) const {
    constexpr size_t together = 4096;
    const float low = is_integer_code(type_.code) ? -static_cast<float>(1 << (bits(type_.code) - 1)) : 0, zero = static_cast<float>(s.zero.value_or(0));
    double sum = 0;
    for (size_t begin = 0; begin < sample_.size() && sum < enough; begin += together)
      for (size_t i = begin; i < std::min(begin + together, sample_.size()); ++i) {
        const float x = sample_[i] / s.scale;
        const float code = low == 0 ? decode_e4m3(encode_e4m3_sat(x)) : std::nearbyint(std::clamp(x + zero, low, -low - 1)) - zero;
        sum += static_cast<double>(std::pow(std::fabs(code * s.scale - sample_[i]), power));
      }
    return sum;
  }

  ir::QuantType type_;
  std::vector<float> sample_;
  recipe::Range average_;
};

std::string_view refuses(const ir::QuantType& t) noexcept {
  const bool codes = is_integer_code(t.code) || t.code == Elem::e4m3;
  return codes && t.block == ir::Block{0, 0} && recipe::has_static_scale(t, producer) ? "" : "integers or E4M3 with one scale";
}

}  // namespace

QB_OBSERVER(mse_llm_compressor) = {
    .name = "mse",
    .source = "llm-compressor 0.14, mse",
    .numerics = producer,
    .argument = {},
    .refuses = refuses,
    .make = [](const ir::QuantType& type, double) -> std::unique_ptr<RangeObserver> { return std::make_unique<ShrunkBySample>(type); }};

}  // namespace qb::calib
