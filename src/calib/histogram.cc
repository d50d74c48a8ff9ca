#include "calib/histogram.h"

#include <algorithm>
#include <cmath>

namespace qb::calib {

void Histogram::reach(float most) {
  if (counts_.empty()) {
    counts_.assign(static_cast<size_t>(first_bins), 0);
    counts_[0] = total_;  // zeros so far
    width_ = static_cast<double>(most) / first_bins;
    return;
  }
  if (!(most > edge(static_cast<int64_t>(counts_.size())))) return;
  while (static_cast<double>(most) / width_ > static_cast<double>(most_bins)) {
    const size_t half = (counts_.size() + 1) / 2;
    counts_.push_back(0);
    for (size_t i = 0; i < half; ++i) counts_[i] = counts_[2 * i] + counts_[2 * i + 1];
    counts_.resize(half);
    width_ *= 2;
  }
  const auto bins = static_cast<size_t>(std::ceil(static_cast<double>(most) / width_));
  counts_.resize(std::max(counts_.size(), bins), 0);
}

void Histogram::add(const float* x, int64_t count) {
  float most = 0;
  for (int64_t i = 0; i < count; ++i) most = std::max(most, std::fabs(x[i]));
  if (most == 0) {
    if (!counts_.empty()) counts_[0] += count;
    total_ += count;
    return;
  }
  reach(most);
  total_ += count;
  const auto last = static_cast<int64_t>(counts_.size()) - 1;
  // As the producer divides: in float32, by the whole range.
  const float bins = static_cast<float>(counts_.size()), top = edge(last + 1);
  for (int64_t i = 0; i < count; ++i) ++counts_[static_cast<size_t>(std::min(static_cast<int64_t>(std::fabs(x[i]) * bins / top), last))];
}

}  // namespace qb::calib
