// What flows into linears, as far as algorithms ask: for each column its range and its mean magnitude, and the sums of the products of all pairs of columns.
//
// The sums, x^T x, say all that an error of the weights does to the outputs: the squares of x d^T sum up to d (x^T x) d^T. So no inputs are kept, however many
// samples there are. Memory: the square of the width, in float32.
#pragma once

#include <vector>

#include "calib/products.h"
#include "host/threads.h"
#include "layer/observer.h"

namespace qb::calib {

// How an algorithm works: the pool and the instruction set; neither changes a result.
struct Tools {
  host::ThreadPool& pool;
  Isa isa = Isa::generic;
};

class Statistics final : public layer::Observer {
 public:
  Statistics(int64_t width, bool products, Tools tools);

  void see(const float* x, int64_t rows, int64_t width) override;
  // As if every column of the inputs had been multiplied by its factor, which is positive.
  void scale(std::span<const float> factors);

  static uint64_t bytes(int64_t width, bool products) {
    return static_cast<uint64_t>(width) * (3 + (products ? static_cast<uint64_t>(width) : 0)) * sizeof(float);
  }
  int64_t width() const { return width_; }
  int64_t tokens() const { return tokens_; }
  std::vector<float> mean_magnitude() const;
  std::span<const float> least() const { return least_; }
  std::span<const float> most() const { return most_; }
  // x^T x [width, width]: from the diagonal to the right; what lies below it is not filled. Taken away: the memory is the caller's.
  std::vector<float> take_products() { return std::move(products_); }
  std::span<const float> products() const { return products_; }

 private:
  Tools tools_;
  int64_t width_, tokens_ = 0;
  std::vector<double> magnitude_;
  std::vector<float> least_, most_, products_;
};

}  // namespace qb::calib
