#include "calib/statistics.h"

#include <algorithm>
#include <cmath>

namespace qb::calib {

Statistics::Statistics(int64_t width, bool products, Tools tools)
    : tools_(tools),
      width_(width),
      magnitude_(static_cast<size_t>(width)),
      least_(static_cast<size_t>(width), __builtin_inff()),
      most_(static_cast<size_t>(width), -__builtin_inff()),
      products_(products ? static_cast<size_t>(width * width) : 0) {}

void Statistics::see(const float* x, int64_t rows, int64_t width) {
  if (width != width_) return;  // the model has checked the sizes of its weights
  tokens_ += rows;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < width; ++c) {
      const float v = x[r * width + c];
      const auto at = static_cast<size_t>(c);
      magnitude_[at] += static_cast<double>(std::fabs(v));
      least_[at] = std::min(least_[at], v);
      most_[at] = std::max(most_[at], v);
    }
  if (products_.empty()) return;
  constexpr int64_t together = 8;
  tools_.pool.ranges(width, together, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += together)
      add_product({.y = products_.data() + i * width + i,
                   .y_row = width,
                   .e = x + i,
                   .e_row = 1,
                   .e_depth = width,
                   .u = x + i,
                   .u_row = width,
                   .rows = std::min(together, end - i),
                   .depth = rows,
                   .columns = width - i},
                  tools_.isa);
  });
}

void Statistics::scale(std::span<const float> factors) {
  const auto width = static_cast<size_t>(width_);
  for (size_t i = 0; i < width; ++i) {
    magnitude_[i] *= static_cast<double>(factors[i]);
    least_[i] *= factors[i];
    most_[i] *= factors[i];
    for (size_t j = i; j < width && !products_.empty(); ++j) products_[i * width + j] *= factors[i] * factors[j];
  }
}

std::vector<float> Statistics::mean_magnitude() const {
  std::vector<float> out(magnitude_.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(magnitude_[i] / static_cast<double>(std::max<int64_t>(tokens_, 1)));
  return out;
}

}  // namespace qb::calib
