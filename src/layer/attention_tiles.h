// Products of attention_body.h by tiles (host/tiles.h), in which 16 queries meet 16 tokens, or dimensions, at once: everything lies as tiles read it.
//
// Fewer than 16 queries are tiles of so many rows. Of more, the last 16 are filled up with rows of zeros: on Emerald Rapids loading other shapes takes as long
// as twelve full products. A row's sums are the same in a tile of any number of rows.
#pragma once

#include "host/tiles.h"
#include "layer/attention_body.h"

namespace qb::layer {
namespace {

template <class T>
class TileProducts {
 public:
  explicit TileProducts(int64_t dim) : dim_(dim) {}
  TileProducts(const TileProducts&) = delete;
  TileProducts& operator=(const TileProducts&) = delete;
  ~TileProducts() { T::release(); }
  static int64_t rows(int64_t count) { return count <= in_tile ? count : (count + in_tile - 1) / in_tile * in_tile; }

  QB_DI void dot_keys(const uint16_t* queries, int64_t count, const uint32_t* keys, float* scores) {
    shape(count);
    for (int64_t i = 0; i < count; i += in_tile, scores += in_tile * tokens) {
      const uint16_t* x = queries + i * dim_;
      const uint32_t* key = keys;
      T::template zero<sum>();
      T::template zero<sum + 1>();
      int64_t d = 0;
      for (; d + pairs_of_tile <= dim_; d += pairs_of_tile, x += pairs_of_tile, key += in_tile * tokens) dot<factor, pairs>(x, key, 2 * dim_, 4 * tokens);
      if (d < dim_) dot<half_factor, half_pairs>(x, key, 2 * dim_, 4 * tokens);
      T::template store<sum>(scores, 4 * tokens);
      T::template store<sum + 1>(scores + lanes, 4 * tokens);
    }
  }

  QB_DI void add_values(const uint16_t* weights, const float* keep, int64_t count, const uint32_t* values, float* sums) {
    shape(count);
    for (int64_t i = 0; i < count; ++i) {
      if (keep[i] == 1) continue;  // as most are, once a context is long
      const __m512 factor_of = _mm512_set1_ps(keep[i]);
      for (int64_t d = 0; d < dim_; d += lanes) _mm512_store_ps(sums + i * dim_ + d, _mm512_mul_ps(_mm512_load_ps(sums + i * dim_ + d), factor_of));
    }
    for (int64_t i = 0; i < count; i += in_tile, sums += in_tile * dim_) {
      T::template load<factor>(weights + i * tokens, 2 * tokens);
      for (int64_t d = 0; d < dim_; d += lanes) {
        T::template load<sum>(sums + d, 4 * dim_);
        T::template load<pairs>(values + d, 4 * dim_);
        T::template dot_bf16<sum, factor, pairs>();
        T::template store<sum>(sums + d, 4 * dim_);
      }
    }
  }

 private:
  static constexpr int64_t in_tile = 16, pairs_of_tile = 32;
  static constexpr int sum = 0, factor = 2, half_factor = 3, pairs = 4, half_pairs = 6;

  // Adds the products of rows `x` with two tiles of pairs.
  template <int a, int b>
  QB_DI static void dot(const uint16_t* x, const uint32_t* key, int64_t x_bytes, int64_t key_bytes) {
    T::template load<a>(x, x_bytes);
    T::template load<b>(key, key_bytes);
    T::template load<b + 1>(key + lanes, key_bytes);
    T::template dot_bf16<sum, a, b>();
    T::template dot_bf16<sum + 1, a, b + 1>();
  }

  void shape(int64_t count) {
    const int64_t rows = std::min(count, in_tile);
    if (rows == rows_) return;
    rows_ = rows;
    host::TileShapes s;
    const auto set = [&s](int tile, int64_t lines, int64_t words) {
      s.rows[tile] = static_cast<uint8_t>(lines);
      s.row_bytes[tile] = static_cast<uint16_t>(4 * words);
    };
    set(factor, rows, 16);
    set(half_factor, rows, 8);
    for (int i = 0; i < 2; ++i) {
      set(sum + i, rows, 16);
      set(pairs + i, 16, 16);
      set(half_pairs + i, 8, 16);
    }
    T::shape(s);
  }

  const int64_t dim_;
  int64_t rows_ = 0;
};

}  // namespace
}  // namespace qb::layer
