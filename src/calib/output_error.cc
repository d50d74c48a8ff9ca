#include "calib/output_error.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
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

Result<void> rounded_rows(const Weight& w, const std::byte* scaled, int64_t first, int64_t last, const std::vector<float>& inverse, float amax,
                          const Tools& tools, float* out) {
  const int64_t count = last - first, k = w.k;
  const Weight part{.path = {}, .n = count, .k = k, .elem = w.elem, .numbers = {}, .recipe = w.recipe, .type = w.type};
  const Made made = make(part, scaled + static_cast<size_t>(first * k * bits(w.elem) / 8), amax, tools.isa);
  const prog::Dequantize op{.type = w.type,
                            .code = 0,
                            .scale = 1,
                            .global = w.type.two_level() ? 2 : -1,
                            .scale_form = ir::ScaleForm::multiply,
                            .global_form = w.recipe->global_divides ? ir::ScaleForm::divide : ir::ScaleForm::multiply,
                            .zero = made.zeros.empty() ? -1 : 3};
  QB_TRY(ops::dequantize({.op = op,
                          .scale_elem = w.recipe->scale_elem(w.elem),
                          .global_elem = Elem::f32,
                          .code = made.codes.data(),
                          .scale = made.scales.data(),
                          .global = w.type.two_level() ? reinterpret_cast<const std::byte*>(&made.global) : nullptr,
                          .zero = made.zeros.empty() ? nullptr : made.zeros.data(),
                          .out = reinterpret_cast<std::byte*>(out),
                          .rows = count,
                          .cols = k}));
  for (int64_t r = 0; r < count; ++r)
    for (int64_t j = 0; j < k; ++j) out[r * k + j] *= inverse[static_cast<size_t>(j)];
  return {};
}

Result<std::vector<float>> rounded(const Weight& w, const std::vector<float>& factors, const Tools& tools) {
  std::vector<float> inverse, out(static_cast<size_t>(w.n * w.k));
  for (const float f : factors) inverse.push_back(1 / f);
  std::vector<std::byte> scaled(w.numbers.size());
  scale_columns(w.numbers.data(), w.elem, w.n, factors, scaled.data());
  const float amax = w.recipe->needs_amax ? recipe::absmax(scaled.data(), w.elem, w.n * w.k, tools.isa) : 0;
  const int64_t step = std::lcm(rows_together, recipe::row_multiple(*w.recipe, w.type));
  std::atomic<bool> failed = false;
  tools.pool.ranges(w.n, step, [&](int64_t begin, int64_t end) {
    if (!rounded_rows(w, scaled.data(), begin, end, inverse, amax, tools, out.data() + begin * w.k)) failed = true;
  });
  if (failed) return Error{Errc::invalid_argument, fmt::format("{} has no values", ir::to_string(w.type))};
  return out;
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
  std::vector<float> lost(static_cast<size_t>(count * k)), plain(static_cast<size_t>(k));
  if (!rounded_rows(w_, scaled_.data(), first, last, inverse, amax, tools_, lost.data())) return std::numeric_limits<double>::quiet_NaN();
  for (int64_t r = 0; r < count; ++r) {
    widen(w_.numbers.data() + at(first + r), w_.elem, k, plain.data());
    for (size_t j = 0; j < plain.size(); ++j) lost[static_cast<size_t>(r * k) + j] -= plain[j];
  }
  return squares(lost.data(), k, products_.data(), k, count, k, tools_.isa);
}

}  // namespace qb::calib
