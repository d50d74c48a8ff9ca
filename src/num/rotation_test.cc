#include "num/rotation.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

namespace qb {
namespace {

std::vector<double> numbers(size_t count, uint32_t seed) {
  std::vector<double> out;
  for (size_t i = 0; i < count; ++i) out.push_back(static_cast<double>(static_cast<int32_t>(seed = seed * 1664525 + 1013904223)) / 2147483648.0);
  return out;
}

// Sylvester's matrix with signs of rows and columns.
std::vector<double> hadamard(size_t n, uint32_t seed) {
  const std::vector<double> r = numbers(n, seed), c = numbers(n, seed + 1);
  std::vector<double> out;
  for (size_t q = 0; q < n; ++q)
    for (size_t p = 0; p < n; ++p) out.push_back((r[q] < 0 ? -1 : 1) * (c[p] < 0 ? -1 : 1) * (std::popcount(p & q) % 2 == 0 ? 1 : -1));
  return out;
}

// By the definition, in the order of the indices.
std::vector<float> by_definition(const std::vector<double>& m, size_t n, bool transposed, double divisor, const std::vector<float>& x) {
  std::vector<float> out;
  for (size_t p = 0; p < n; ++p) {
    double sum = 0;
    for (size_t q = 0; q < n; ++q) sum += static_cast<double>(x[q]) * (transposed ? m[p * n + q] : m[q * n + p]) / divisor;
    out.push_back(static_cast<float>(sum));
  }
  return out;
}

void agrees(const std::vector<double>& m, size_t n, bool fast) {
  std::vector<float> x;
  for (const double d : numbers(n, 7)) x.push_back(static_cast<float>(d));
  for (const bool transposed : {false, true}) {
    const double divisor = std::sqrt(static_cast<double>(n));
    const Rotation r(m, static_cast<int64_t>(n), transposed, divisor);
    EXPECT_EQ(r.fast(), fast);
    const std::vector<float> want = by_definition(m, n, transposed, divisor, x);
    std::vector<double> room(r.room());
    std::vector<float> apart(3 * n), in_place = x;
    for (size_t i = 0; i < n; ++i) apart[3 * i] = x[i];
    r.apply(in_place.data(), in_place.data(), 1, room);
    r.apply(apart.data(), apart.data(), 3, room);
    for (size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(in_place[i], want[i], 1e-6) << n << " " << i;
      EXPECT_EQ(apart[3 * i], in_place[i]);
    }
  }
}

TEST(Rotation, OfAnyMatrix) {
  for (const size_t n : {1, 2, 3, 12, 64}) agrees(numbers(n * n, static_cast<uint32_t>(n)), n, n == 1);
}

TEST(Rotation, OfHadamardsMatricesIsFast) {
  for (const size_t n : {2, 4, 64, 128}) agrees(hadamard(n, static_cast<uint32_t>(n)), n, true);
}

TEST(Rotation, OneOtherSignIsSeen) {
  std::vector<double> m = hadamard(8, 3);
  m[8 * 5 + 6] = -m[8 * 5 + 6];
  agrees(m, 8, false);
}

}  // namespace
}  // namespace qb
