#include "calib/ranges.h"

#include <algorithm>
#include <cmath>

namespace qb::calib {
namespace {

constexpr float kept = static_cast<float>(1.0 - 0.01), added = static_cast<float>(0.01);

// Sixteen side by side: one after the other would wait for each comparison. NaN is found on its own, since comparisons pass over it.
recipe::Range range_of(const float* x, int64_t count) {
  constexpr int64_t lanes = 16;
  float least[lanes], most[lanes];
  int32_t nan[lanes]{};
  recipe::Range r;
  std::fill_n(least, lanes, r.least);
  std::fill_n(most, lanes, r.most);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    for (int64_t j = 0; j < lanes; ++j) {
      const float v = x[i + j];
      least[j] = v < least[j] ? v : least[j];
      most[j] = v > most[j] ? v : most[j];
      nan[j] |= v != v ? 1 : 0;
    }
  for (int64_t j = 0; i + j < count; ++j) {
    const float v = x[i + j];
    least[j] = v < least[j] ? v : least[j];
    most[j] = v > most[j] ? v : most[j];
    nan[j] |= v != v ? 1 : 0;
  }
  r = {*std::min_element(least, least + lanes), *std::max_element(most, most + lanes)};
  if (std::any_of(nan, nan + lanes, [](int32_t n) { return n != 0; })) r = {-__builtin_inff(), __builtin_inff()};  // as unusable as infinity
  return r;
}

}  // namespace

void RangeObservers::One::see(const float* x, int64_t rows, int64_t width) {
  if (rows > 0) sample.add(range_of(x, rows * width));
}

void RangeObservers::watch(const pass::Measured& what, bool average) {
  watched_[what].average = average;
}

layer::Observer* RangeObservers::of(const std::string& path, ir::Role role) {
  const auto it = watched_.find({path, role});
  return it == watched_.end() ? nullptr : &it->second;
}

void RangeObservers::sample_done() {
  for (auto& [what, one] : watched_) {
    if (one.sample.empty()) continue;
    if (one.average && !one.all.empty()) {
      one.all = {one.all.least * kept + one.sample.least * added, one.all.most * kept + one.sample.most * added};
    } else {
      one.all.add(one.sample);
    }
    one.sample = {};
  }
}

pass::Ranges RangeObservers::ranges() const {
  pass::Ranges out;
  for (const auto& [what, one] : watched_)
    if (!one.all.empty()) out.measured[what] = one.all;
  return out;
}

}  // namespace qb::calib
