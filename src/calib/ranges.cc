#include "calib/ranges.h"

#include <algorithm>
#include <utility>

namespace qb::calib {

RangeObservers::Place::Place(const ChosenObserver& observer_, const ir::QuantType& type_, std::vector<float> factors)
    : chosen(observer_), type(type_), factors_(std::move(factors)) {}

void RangeObservers::Place::see(const float* x, int64_t rows, int64_t width) {
  if (factors_.empty()) return observer->see(x, rows, width);
  std::vector<float> scaled(x, x + rows * width);
  for (size_t i = 0; i < scaled.size(); ++i) scaled[i] *= factors_[i % factors_.size()];
  observer->see(scaled.data(), rows, width);
}

void RangeObservers::watch(const pass::Measured& what, const ChosenObserver& observer, const ir::QuantType& type, std::vector<float> factors) {
  watched_.insert_or_assign(what, Place(observer, type, std::move(factors)));
}

layer::Observer* RangeObservers::of(const std::string& path, ir::Role role) {
  const auto it = watched_.find({path, role});
  if (it == watched_.end()) return nullptr;
  Place& place = it->second;
  place.observer = place.chosen.kind->make(place.type, place.chosen.argument);
  return &place;
}

void RangeObservers::sample_done() {
  for (auto& [what, place] : watched_)
    if (place.observer) place.observer->sample_done();
}

Result<void> RangeObservers::end(int64_t, const std::function<void(double)>&) {
  for (auto& [what, place] : watched_) {
    if (!place.observer) continue;
    if (const recipe::Range r = place.observer->range(); !r.empty()) ranges_.measured[what] = r;
    place.observer.reset();
  }
  return {};
}

}  // namespace qb::calib
