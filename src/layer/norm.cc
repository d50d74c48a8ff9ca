#include "layer/norm.h"

#include <cmath>

#include "recipe/loops.h"

namespace qb::layer {
namespace {

struct Args {
  const float* x;
  const float* weight;
  float eps;
  int64_t n;
  float* y;
  Isa isa;
};

struct Rows {
  static QB_INLINE void run(const Args* a, int64_t begin, int64_t end) {
    constexpr int64_t lanes = 16;
    for (int64_t row = begin; row < end; ++row) {
      const float* x = a->x + row * a->n;
      float* y = a->y + row * a->n;
      float sums[lanes] = {};
      int64_t i = 0;
      for (; i + lanes <= a->n; i += lanes)
        for (int64_t l = 0; l < lanes; ++l) sums[l] += x[i + l] * x[i + l];
      for (int64_t l = 0; i + l < a->n; ++l) sums[l] += x[i + l] * x[i + l];
      for (int64_t half = lanes / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
      const float scale = 1.0F / std::sqrt(sums[0] / static_cast<float>(a->n) + a->eps);
      for (int64_t j = 0; j < a->n; ++j) y[j] = a->weight[j] * (x[j] * scale);
    }
  }
};

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t n, float* y, Isa isa, host::ThreadPool& pool) {
  const Args args{x, weight, eps, n, y, isa};
  const auto part = [&args](int64_t begin, int64_t end) { recipe::run_at<Rows>(args.isa, &args, begin, end); };
  // One row is done before another thread would have woken up.
  if (rows * n <= 16384) return part(0, rows);
  pool.ranges(rows, 1, part);
}

}  // namespace qb::layer
