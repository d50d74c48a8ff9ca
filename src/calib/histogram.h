// How often magnitudes occur: bins of equal width from 0 on, in bounded memory, of numbers that go by once.
//
// Source: HistogramCalibrator of ModelOpt 0.47, as it counts by default: the largest magnitude of what is seen first is cut into 2048 bins, and where larger
// ones follow, bins of the same width are added. One deviation: beyond 8192 bins two neighbours become one, so that no first sample makes it grow without end.
#pragma once

#include <cstdint>
#include <vector>

namespace qb::calib {

class Histogram {
 public:
  static constexpr int64_t first_bins = 2048, most_bins = 4 * first_bins;

  // Numbers that are finite; zeros count, in the first bin.
  void add(const float* x, int64_t count);

  // Empty while nothing but zeros was seen. Bin i holds magnitudes from i times the width up to, and the last one with, the edge behind it.
  const std::vector<int64_t>& counts() const { return counts_; }
  float edge(int64_t i) const { return static_cast<float>(static_cast<double>(i) * width_); }
  float center(int64_t i) const { return (edge(i) + edge(i + 1)) / 2; }
  int64_t total() const { return total_; }

 private:
  void reach(float most);

  double width_ = 0;
  int64_t total_ = 0;
  std::vector<int64_t> counts_;
};

}  // namespace qb::calib
