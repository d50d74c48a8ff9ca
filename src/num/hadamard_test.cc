#include "num/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

namespace qb {
namespace {

TEST(Hadamard, IsTheProductWithSylvestersMatrix) {
  for (const int64_t n : {1, 2, 8, 64})
    for (const int64_t width : {1, 3, 8}) {
      std::vector<double> x(static_cast<size_t>(n * width));
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>((i * 37) % 101) - 50;  // whole numbers: sums are exact
      std::vector<double> y = x;
      hadamard(y.data(), n, width);
      for (int64_t p = 0; p < n; ++p)
        for (int64_t c = 0; c < width; ++c) {
          double want = 0;
          for (int64_t q = 0; q < n; ++q) want += x[static_cast<size_t>(q * width + c)] * (std::popcount(static_cast<uint64_t>(p & q)) % 2 == 0 ? 1 : -1);
          EXPECT_EQ(y[static_cast<size_t>(p * width + c)], want) << n << " " << p << " " << c;
        }
    }
}

// The first outputs from the seed 0, as the generator's reference implementation prints them: 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F,
// 0xF88BB8A8724C81EC, 0x1B39896A51A8749B.
TEST(Hadamard, SignsAreSplitMix64s) {
  const double want[] = {-1, 1, 1, -1, 1};
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(random_sign(i), want[i]) << i;
  double sum = 0;
  for (uint64_t i = 0; i < 4096; ++i) sum += random_sign(i);
  EXPECT_LT(sum * sum, 16 * 4096);  // four standard deviations
}

}  // namespace
}  // namespace qb
