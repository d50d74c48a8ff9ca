// Attention by products in float32, in plain C++ for every instruction set: the same bits with each.
#include <algorithm>
#include <cstring>

#include "layer/attention_pass.h"
#include "layer/exp.h"
#include "num/codec.h"

namespace qb::layer {
namespace {

QB_INLINE void widen(const std::byte* p, Elem elem, int64_t count, float* __restrict out) {
  if (elem == Elem::f32) {
    std::memcpy(out, p, static_cast<size_t>(count) * sizeof(float));
  } else if (elem == Elem::bf16) {
    for (int64_t i = 0; i < count; ++i) out[i] = recipe::Bf16::value(recipe::load<recipe::Bf16>(p, i));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = std::bit_cast<float>(e4m3_bits(p[i]));
  }
}

// Eight numbers; sums in arrays of these stay in registers where every loop over them is unrolled by pragma. More than six independent sums hide the latency of
// an addition.
using Eight = float __attribute__((vector_size(32)));
constexpr int64_t lanes = 8;

// Not by value: what a vector is passed in depends on the instruction set.
QB_INLINE void load_eight(const float* p, Eight& v) {
  std::memcpy(&v, p, sizeof v);
}

// 32 numbers in a fixed order of halves: `both` takes what lies half the numbers apart.
template <class Both>
QB_INLINE float by_halves(const float* s, const Both& both) {
  Eight v[tokens / lanes];
  QB_UNROLL for (int64_t i = 0; i < tokens / lanes; ++i) load_eight(s + i * lanes, v[i]);
  both(v[0], v[2]);
  both(v[1], v[3]);
  both(v[0], v[1]);
  float t[lanes];
  std::memcpy(t, &v[0], sizeof t);
  for (int64_t half = lanes / 2; half > 0; half /= 2)
    for (int64_t j = 0; j < half; ++j) both(t[j], t[j + half]);
  return t[0];
}
QB_INLINE float most_of(const float* s) {
  return by_halves(
      s, [](auto& x, const auto& y) __attribute__((always_inline)) { x = y > x ? y : x; });
}
QB_INLINE float sum_of(const float* s) {
  return by_halves(
      s, [](auto& x, const auto& y) __attribute__((always_inline)) { x += y; });
}

// Scores of 32 tokens with Q queries, each summed in order of the dimension.
template <int Q>
QB_INLINE void dot_keys(const Query* queries, const float* keys, int64_t dim, float* scores) {
  constexpr int64_t parts = tokens / lanes;
  Eight sums[Q][parts];
  QB_UNROLL for (int q = 0; q < Q; ++q) {
    QB_UNROLL for (int64_t i = 0; i < parts; ++i) sums[q][i] = Eight{};
  }
  for (int64_t d = 0; d < dim; ++d, keys += tokens) {
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      const float x = queries[q].q[d];
      QB_UNROLL for (int64_t i = 0; i < parts; ++i) {
        Eight key;
        load_eight(keys + i * lanes, key);
        sums[q][i] += x * key;
      }
    }
  }
  QB_UNROLL for (int q = 0; q < Q; ++q) {
    QB_UNROLL for (int64_t i = 0; i < parts; ++i) std::memcpy(scores + q * tokens + i * lanes, &sums[q][i], sizeof(Eight));
  }
}

// Of Q queries: sums = sums * keep + the values of tokens [begin, end) by weight, each summed in order of the tokens: N * lanes dimensions.
template <int Q, int N>
QB_INLINE void add_values(const float* const* weights, int64_t begin, int64_t end, const float* values, int64_t dim, const float* keep, float* const* sums,
                          int64_t d) {
  Eight t[Q][N];
  QB_UNROLL for (int q = 0; q < Q; ++q) {
    QB_UNROLL for (int i = 0; i < N; ++i) {
      load_eight(sums[q] + d + i * lanes, t[q][i]);
      t[q][i] *= keep[q];
    }
  }
  const float* from = values + begin * dim + d;
  for (int64_t j = begin; j < end; ++j, from += dim) {
    Eight value[N];
    QB_UNROLL for (int i = 0; i < N; ++i) load_eight(from + i * lanes, value[i]);
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      const float weight = weights[q][j];
      QB_UNROLL for (int i = 0; i < N; ++i) t[q][i] += weight * value[i];
    }
  }
  QB_UNROLL for (int q = 0; q < Q; ++q) {
    QB_UNROLL for (int i = 0; i < N; ++i) std::memcpy(sums[q] + d + i * lanes, &t[q][i], sizeof(Eight));
  }
}

// The same for all dimensions.
template <int Q>
QB_INLINE void add_all_values(const float* const* weights, int64_t begin, int64_t end, const float* values, int64_t dim, const float* keep,
                              float* const* sums) {
  constexpr int parts = Q == 1 ? 8 : 4;
  int64_t d = 0;
  for (; d + parts * lanes <= dim; d += parts * lanes) add_values<Q, parts>(weights, begin, end, values, dim, keep, sums, d);
  for (; d + lanes <= dim; d += lanes) add_values<Q, 1>(weights, begin, end, values, dim, keep, sums, d);
  for (; d < dim; ++d) {
    for (int q = 0; q < Q; ++q) {
      float sum = sums[q][d] * keep[q];
      for (int64_t j = begin; j < end; ++j) sum += weights[q][j] * values[j * dim + d];
      sums[q][d] = sum;
    }
  }
}

// So many queries at once, as registers hold their sums: what is read serves them all, and none waits for what comes of its own.
template <int together>
struct FloatSweep {
  struct Buffers {
    float* keys;    // [head_dim, 32]
    float* values;  // [32, head_dim]
    float* sums;    // [count, head_dim]
  };

  static QB_INLINE void run(const Pass* p) {
    const KvLayer& kv = *p->kv;
    const int64_t dim = kv.head_dim, head_bytes = dim * tokens * bits(kv.elem) / 8;
    alignas(64) float keys[max_head_dim * tokens], values[max_head_dim * tokens], sums[max_queries * max_head_dim];
    float most[max_queries], total[max_queries];
    for (int64_t i = 0; i < p->count; ++i) {
      most[i] = p->queries[i].sink;
      total[i] = most[i] == nothing ? 0.0F : 1.0F;
      for (int64_t d = 0; d < dim; ++d) sums[i * dim + d] = 0;
    }
    const Buffers buffers{keys, values, sums};
    const int64_t end = p->last() / tokens + 1;
    for (int64_t b = p->first() / tokens; b < end; ++b) {
      const int64_t at = p->table[b] * kv.block_stride + p->head * head_bytes;
      widen(kv.keys + at, kv.elem, dim * tokens, keys);
      widen(kv.values + at, kv.elem, dim * tokens, values);
      for (int64_t i = 0; i < p->count; i += together) step(p, buffers, i, std::min<int64_t>(together, p->count - i), b, most + i, total + i);
    }
    for (int64_t i = 0; i < p->count; ++i) {
      const float factor = (kv.elem == Elem::e4m3 ? kv.v.scale : 1.0F) / total[i];
      for (int64_t d = 0; d < dim; ++d) p->queries[i].q[d] = sums[i * dim + d] * factor;
    }
  }

  // Adds the tokens of block b that queries [first, first + count) see.
  static QB_INLINE void step(const Pass* p, const Buffers& of, int64_t first, int64_t count, int64_t b, float* most, float* total) {
    alignas(64) float all[together * tokens];
    const Query* const queries = p->queries + first;
    const int64_t dim = p->kv->head_dim;
    int64_t done = 0;
    if (count == together) dot_keys<together>(queries, of.keys, dim, all), done = count;
    for (; done < count; ++done) dot_keys<1>(queries + done, of.keys, dim, all + done * tokens);
    // Those that see any.
    struct Seeing {
      int64_t query, begin, end;
    } seeing[together];
    int seen = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = std::max(queries[i].low - b * tokens, int64_t{0}), end = std::min(queries[i].high - b * tokens + 1, tokens);
      if (begin < end) seeing[seen++] = {i, begin, end};
    }
    const float* weights[together];
    float* sums[together];
    float keep[together], now[together];
    for (int s = 0; s < seen; ++s) {
      const auto [query, begin, end] = seeing[s];
      float* const scores = all + query * tokens;
      for (int64_t j = 0; j < tokens; ++j) scores[j] *= p->scale;
      // What lies outside the visible range may be anything, NaN included.
      for (int64_t j = 0; j < begin; ++j) scores[j] = nothing;
      for (int64_t j = end; j < tokens; ++j) scores[j] = nothing;
      if (p->softcap > 0)
        for (int64_t j = begin; j < end; ++j) scores[j] = p->softcap * (1.0F - 2.0F / (exp_f32(2.0F * scores[j] / p->softcap) + 1.0F));  // tanh
      weights[s] = scores;
      sums[s] = of.sums + (first + query) * dim;
    }
    for (int s = 0; s < seen; ++s) {
      float& before = most[seeing[s].query];
      const float top = most_of(weights[s]);
      now[s] = top > before ? top : before;
      keep[s] = before - now[s];
      before = now[s];
    }
    for (int s = 0; s < seen; ++s) keep[s] = exp_f32(keep[s]);
    for (int s = 0; s < seen; ++s) {
      float* const scores = all + seeing[s].query * tokens;
      for (int64_t j = 0; j < tokens; ++j) scores[j] = exp_f32(scores[j] - now[s]);
    }
    for (int s = 0; s < seen; ++s) total[seeing[s].query] = total[seeing[s].query] * keep[s] + sum_of(weights[s]);
    bool alike = seen == together;
    for (int s = 1; s < seen; ++s) alike = alike && seeing[s].begin == seeing[0].begin && seeing[s].end == seeing[0].end;
    if (alike) return add_all_values<together>(weights, seeing[0].begin, seeing[0].end, of.values, dim, keep, sums);
    for (int s = 0; s < seen; ++s) add_all_values<1>(weights + s, seeing[s].begin, seeing[s].end, of.values, dim, keep + s, sums + s);
  }
};

template <Isa isa, int together>
void sweep(const Pass& p) {
  recipe::run_at<FloatSweep<together>>(isa, &p);
}

}  // namespace

Sweep float_products(Isa isa) {
  return isa == Isa::avx512 ? sweep<Isa::avx512, 4> : isa == Isa::avx2 ? sweep<Isa::avx2, 2> : sweep<Isa::generic, 2>;
}

}  // namespace qb::layer
