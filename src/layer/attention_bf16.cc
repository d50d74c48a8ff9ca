// Attention by BF16 dot products (Zen 4, Cooper Lake): twice the products of float32 in a cycle.
#if defined(__x86_64__)
#include "layer/attention_body.h"

namespace qb::layer {
namespace {

class Dots {
 public:
  explicit Dots(int64_t dim) : dim_(dim) {}
  static int64_t rows(int64_t count) { return count; }

  QB_DI void dot_keys(const uint16_t* queries, int64_t count, const uint32_t* keys, float* scores) const {
    for (int64_t i = 0; i < count; i += 4)
      with_number(std::min<int64_t>(4, count - i), [&](auto q) QB_D { dot<q>(queries + i * dim_, keys, scores + i * tokens); });
  }
  QB_DI void add_values(const uint16_t* weights, const float* keep, int64_t count, const uint32_t* values, float* sums) const {
    for (int64_t i = 0; i < count; i += 4)
      with_number(std::min<int64_t>(4, count - i), [&](auto q) QB_D { add<q>(weights + i * tokens, keep + i, values, sums + i * dim_); });
  }

 private:
  const int64_t dim_;

  // Of Q queries, each score summed in order of the dimensions.
  template <int Q>
  QB_DI void dot(const uint16_t* x, const uint32_t* key, float* scores) const {
    __m512 t[Q][2];
    QB_UNROLL for (int q = 0; q < Q; ++q) t[q][0] = t[q][1] = _mm512_setzero_ps();
    for (int64_t d = 0; d < dim_; d += 2, key += tokens, x += 2) {
      const __m512i low = _mm512_load_si512(key), high = _mm512_load_si512(key + lanes);
      QB_UNROLL for (int q = 0; q < Q; ++q) {
        int pair;
        std::memcpy(&pair, x + q * dim_, sizeof pair);
        const auto both = (__m512bh)_mm512_set1_epi32(pair);
        t[q][0] = _mm512_dpbf16_ps(t[q][0], (__m512bh)low, both);
        t[q][1] = _mm512_dpbf16_ps(t[q][1], (__m512bh)high, both);
      }
    }
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      _mm512_store_ps(scores + q * tokens, t[q][0]);
      _mm512_store_ps(scores + q * tokens + lanes, t[q][1]);
    }
  }

  // Of Q queries, each sum in order of the tokens; N * 16 dimensions from d on.
  template <int Q, int N>
  QB_DI void add(const uint16_t* weights, const float* keep, const uint32_t* values, float* sums, int64_t d) const {
    __m512 t[Q][N];
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      const __m512 factor = _mm512_set1_ps(keep[q]);
      QB_UNROLL for (int i = 0; i < N; ++i) t[q][i] = _mm512_mul_ps(_mm512_load_ps(sums + q * dim_ + d + i * lanes), factor);
    }
    for (int64_t j = 0; j < tokens; j += 2) {
      __m512i value[N];
      QB_UNROLL for (int i = 0; i < N; ++i) value[i] = _mm512_load_si512(values + j / 2 * dim_ + d + i * lanes);
      QB_UNROLL for (int q = 0; q < Q; ++q) {
        int pair;
        std::memcpy(&pair, weights + q * tokens + j, sizeof pair);
        const auto both = (__m512bh)_mm512_set1_epi32(pair);
        QB_UNROLL for (int i = 0; i < N; ++i) t[q][i] = _mm512_dpbf16_ps(t[q][i], (__m512bh)value[i], both);
      }
    }
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      QB_UNROLL for (int i = 0; i < N; ++i) _mm512_store_ps(sums + q * dim_ + d + i * lanes, t[q][i]);
    }
  }
  template <int Q>
  QB_DI void add(const uint16_t* weights, const float* keep, const uint32_t* values, float* sums) const {
    int64_t d = 0;
    for (; d + 4 * lanes <= dim_; d += 4 * lanes) add<Q, 4>(weights, keep, values, sums, d);
    for (; d < dim_; d += lanes) add<Q, 1>(weights, keep, values, sums, d);
  }
};

}  // namespace

Sweep bf16_dots(const KvLayer& kv) {
  return sweep_of<Dots>(kv);
}

}  // namespace qb::layer
#else
#include "layer/attention_pass.h"

namespace qb::layer {
Sweep bf16_dots(const KvLayer&) {
  return nullptr;
}
}  // namespace qb::layer
#endif
