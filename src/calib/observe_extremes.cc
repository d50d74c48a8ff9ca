// max: the least and the largest of everything; average: a moving average of the samples' own.
//
// Sources: "max" of ModelOpt 0.47 and "static_minmax" of llm-compressor 0.14, which both have for the inputs of linears; "minmax" of llm-compressor 0.14, which
// its KV caches have: the first sample's range, then (1 - c) of the old and c of the new one, c = 0.01.
#include "calib/range_observer.h"

namespace qb::calib {
namespace {

class Extremes final : public RangeObserver {
 public:
  void see(const float* x, int64_t rows, int64_t width) override {
    if (rows > 0) all_.add(range_of(x, rows * width));
  }
  recipe::Range range() const override { return all_; }

 private:
  recipe::Range all_;
};

class Average final : public RangeObserver {
 public:
  explicit Average(double share) : kept_(static_cast<float>(1 - share)), added_(static_cast<float>(share)) {}

  void see(const float* x, int64_t rows, int64_t width) override {
    if (rows > 0) sample_.add(range_of(x, rows * width));
  }
  void sample_done() override {
    if (sample_.empty()) return;
    average_ = average_.empty() ? sample_ : recipe::Range{average_.least * kept_ + sample_.least * added_, average_.most * kept_ + sample_.most * added_};
    sample_ = {};
  }
  recipe::Range range() const override { return average_; }

 private:
  float kept_, added_;
  recipe::Range average_, sample_;
};

std::string_view nothing(const ir::QuantType&) noexcept {
  return {};
}

}  // namespace

QB_OBSERVER(max) = {.name = "max",
                    .source = "nvidia-modelopt 0.47, MaxCalibrator; llm-compressor 0.14, static_minmax",
                    .numerics = {},
                    .argument = {},
                    .refuses = nothing,
                    .make = [](const ir::QuantType&, double) -> std::unique_ptr<RangeObserver> { return std::make_unique<Extremes>(); }};
QB_OBSERVER(average) = {.name = "average",
                        .source = "llm-compressor 0.14, minmax",
                        .numerics = {},
                        .argument = {.what = "the share of each new sample", .usual = 0.01, .least = 0, .most = 1},
                        .refuses = nothing,
                        .make = [](const ir::QuantType&, double share) -> std::unique_ptr<RangeObserver> { return std::make_unique<Average>(share); }};

}  // namespace qb::calib
