// Who watches which places of a model, layer by layer, and what came of it.
//
// Goals: the memory of one layer's observers. Non-goals: how a range is taken (calib/range_observer.h).
#pragma once

#include <map>
#include <vector>

#include "calib/calibrate.h"
#include "calib/range_observer.h"
#include "pass/calibration.h"

namespace qb::calib {

class RangeObservers final : public layer::Observers, public LayerWork {
 public:
  // The inputs of what an algorithm has scaled are multiplied by `factors`, one for each column, before they are looked at; empty: they are as they come.
  void watch(const pass::Measured& what, const ChosenObserver& observer, const ir::QuantType& type, std::vector<float> factors = {});

  layer::Observer* of(const std::string& path, ir::Role role) override;
  Result<Pass> begin(int64_t) override { return Pass::go; }
  void sample_done() override;
  Result<void> end(int64_t, const std::function<void(double)>&) override;
  // Places that nothing flowed into have none.
  const pass::Ranges& ranges() const { return ranges_; }

 private:
  class Place final : public layer::Observer {
   public:
    Place(const ChosenObserver& observer, const ir::QuantType& type, std::vector<float> factors);
    void see(const float* x, int64_t rows, int64_t width) override;

    ChosenObserver chosen;
    ir::QuantType type;
    std::unique_ptr<RangeObserver> observer;  // while its layer is run

   private:
    std::vector<float> factors_;
  };
  std::map<pass::Measured, Place> watched_;
  pass::Ranges ranges_;
};

}  // namespace qb::calib
