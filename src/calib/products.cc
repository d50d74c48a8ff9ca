#include "calib/products.h"

#include <algorithm>
#include <cstring>

#include "num/codec.h"
#include "recipe/loops.h"

namespace qb::calib {
namespace {

struct AddProduct {
  static QB_INLINE void run(const Product* product) {
    const Product& p = *product;
    constexpr int64_t wide = 512;  // of y and u, so that they stay in the first cache for all rows
    for (int64_t begin = 0; begin < p.columns; begin += wide) {
      const int64_t count = begin + wide < p.columns ? wide : p.columns - begin;
      int64_t d = 0;
      for (; d + 4 <= p.depth; d += 4) {
        const float *u0 = p.u + d * p.u_row + begin, *u1 = u0 + p.u_row, *u2 = u1 + p.u_row, *u3 = u2 + p.u_row;
        for (int64_t r = 0; r < p.rows; ++r) {
          const float* e = p.e + r * p.e_row + d * p.e_depth;
          four(p.y + r * p.y_row + begin, e[0], u0, e[p.e_depth], u1, e[2 * p.e_depth], u2, e[3 * p.e_depth], u3, count);
        }
      }
      for (; d < p.depth; ++d)
        for (int64_t r = 0; r < p.rows; ++r) one(p.y + r * p.y_row + begin, p.e[r * p.e_row + d * p.e_depth], p.u + d * p.u_row + begin, count);
    }
  }

 private:
  static QB_INLINE void four(float* __restrict y, float e0, const float* __restrict u0, float e1, const float* __restrict u1, float e2,
                             const float* __restrict u2, float e3, const float* __restrict u3, int64_t count) {
    for (int64_t c = 0; c < count; ++c) y[c] += (e0 * u0[c] + e1 * u1[c]) + (e2 * u2[c] + e3 * u3[c]);
  }
  static QB_INLINE void one(float* __restrict y, float e, const float* __restrict u, int64_t count) {
    for (int64_t c = 0; c < count; ++c) y[c] += e * u[c];
  }
};

template <class S>
void widen_as(const std::byte* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = S::value(recipe::load<S>(from, i));
}

}  // namespace

void add_product(const Product& product, Isa isa) noexcept {
  recipe::run_at<AddProduct>(isa, &product);
}

void widen(const std::byte* from, Elem elem, int64_t count, float* to) {
  if (elem == Elem::bf16) return widen_as<recipe::Bf16>(from, count, to);
  if (elem == Elem::f16) return widen_as<recipe::F16>(from, count, to);
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void narrow(const float* from, int64_t count, Elem elem, std::byte* to) {
  if (elem == Elem::f32) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) recipe::store(to, i, elem == Elem::bf16 ? encode_bf16(from[i]) : encode_f16(from[i]));
}

void scale_columns(const std::byte* from, Elem elem, int64_t rows, std::span<const float> factors, std::byte* to) {
  const auto count = static_cast<int64_t>(factors.size());
  std::vector<float> row(factors.size());
  for (int64_t r = 0; r < rows; ++r) {
    const auto at = static_cast<size_t>(r * count * bits(elem) / 8);
    widen(from + at, elem, count, row.data());
    for (size_t j = 0; j < row.size(); ++j) row[j] *= factors[j];
    narrow(row.data(), count, elem, to + at);
  }
}

}  // namespace qb::calib
