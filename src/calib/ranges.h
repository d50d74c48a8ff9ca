// The range of what flows through places of a model: over all tokens, or as a moving average over the samples.
//
// Source of the average: the observer "minmax" of llm-compressor 0.14, which its KV caches have: the first sample's range, then 0.99 of the old and 0.01 of the
// new one.
#pragma once

#include <map>

#include "calib/calibrate.h"
#include "layer/observer.h"
#include "pass/calibration.h"

namespace qb::calib {

class RangeObservers final : public layer::Observers, public LayerWork {
 public:
  void watch(const pass::Measured& what, bool average);

  layer::Observer* of(const std::string& path, ir::Role role) override;
  Result<Pass> begin(int64_t) override { return Pass::go; }
  // Everything that is seen belongs to the sample that is done next.
  void sample_done() override;
  Result<void> end(int64_t) override { return {}; }
  // Places that nothing flowed into have none.
  pass::Ranges ranges() const;

 private:
  class One final : public layer::Observer {
   public:
    void see(const float* x, int64_t rows, int64_t width) override;
    recipe::Range all, sample;
    bool average = false;
  };
  std::map<pass::Measured, One> watched_;
};

}  // namespace qb::calib
