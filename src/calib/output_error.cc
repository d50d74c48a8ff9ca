#include "calib/output_error.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "exec/ops.h"

namespace qb::calib {

constexpr int64_t depth_together = 128, rows_together = 32;

std::vector<float> doubled_products(Statistics& inputs) {
  std::vector<float> h = inputs.take_products();
  const auto k = static_cast<size_t>(inputs.width());
  for (size_t i = 0; i < k; ++i) {
    std::fill_n(h.begin() + static_cast<std::ptrdiff_t>(i * k), i, 0.0F);
    for (size_t j = i + 1; j < k; ++j) h[i * k + j] *= 2;
  }
  return h;
}

double squares(const float* d, int64_t d_row, const float* p, int64_t p_row, int64_t rows, int64_t k, Isa isa) {
  std::vector<float> sums(static_cast<size_t>(rows * k));
  for (int64_t b = 0; b < k; b += depth_together)
    add_product({.y = sums.data() + b,
                 .y_row = k,
                 .e = d + b,
                 .e_row = d_row,
                 .e_depth = 1,
                 .u = p + b * p_row + b,
                 .u_row = p_row,
                 .rows = rows,
                 .depth = std::min(depth_together, k - b),
                 .columns = k - b},
                isa);
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < k; ++j) sum += static_cast<double>(d[r * d_row + j]) * static_cast<double>(sums[static_cast<size_t>(r * k + j)]);
  return sum;
}

double OutputError::of(const std::vector<float>& factors, const std::vector<float>& inverse, float part) {
  const int64_t step = std::lcm(rows_together, recipe::row_multiple(*w_.recipe, w_.type));
  tools_.pool.ranges(
      w_.n, step, [&](int64_t begin, int64_t end) { scale_columns(w_.numbers.data() + at(begin), w_.elem, end - begin, factors, scaled_.data() + at(begin)); });
  const float amax = w_.recipe->needs_amax ? recipe::absmax(scaled_.data(), w_.elem, w_.n * w_.k, tools_.isa) * part : 0;
  std::vector<double> sums(static_cast<size_t>((w_.n + step - 1) / step));  // added in their order, whoever makes them
  tools_.pool.ranges(w_.n, step, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += step) sums[static_cast<size_t>(first / step)] = rows(first, std::min(first + step, w_.n), inverse, amax);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

double OutputError::rows(int64_t first, int64_t last, const std::vector<float>& inverse, float amax) const {
  const int64_t count = last - first, k = w_.k;
  Weight part{.path = {}, .n = count, .k = k, .elem = w_.elem, .numbers = {}, .recipe = w_.recipe, .type = w_.type};
  const Made made = make(part, scaled_.data() + at(first), amax, tools_.isa);
  std::vector<float> lost(static_cast<size_t>(count * k)), plain(static_cast<size_t>(k));
  const prog::Dequantize op{.type = w_.type,
                            .code = 0,
                            .scale = 1,
                            .global = w_.type.two_level() ? 2 : -1,
                            .scale_form = ir::ScaleForm::multiply,
                            .global_form = w_.recipe->global_divides ? ir::ScaleForm::divide : ir::ScaleForm::multiply,
                            .zero = made.zeros.empty() ? -1 : 3};
  const Result<void> done = ops::dequantize({.op = op,
                                             .scale_elem = w_.recipe->scale_elem(w_.elem),
                                             .global_elem = Elem::f32,
                                             .code = made.codes.data(),
                                             .scale = made.scales.data(),
                                             .global = w_.type.two_level() ? reinterpret_cast<const std::byte*>(&made.global) : nullptr,
                                             .zero = made.zeros.empty() ? nullptr : made.zeros.data(),
                                             .out = reinterpret_cast<std::byte*>(lost.data()),
                                             .rows = count,
                                             .cols = k});
  if (!done) return std::numeric_limits<double>::quiet_NaN();
  for (int64_t r = 0; r < count; ++r) {
    widen(w_.numbers.data() + at(first + r), w_.elem, k, plain.data());
    for (size_t j = 0; j < plain.size(); ++j) {
      float& d = lost[static_cast<size_t>(r * k) + j];
      d = d * inverse[j] - plain[j];
    }
  }
  return squares(lost.data(), k, products_.data(), k, count, k, tools_.isa);
}

}  // namespace qb::calib
