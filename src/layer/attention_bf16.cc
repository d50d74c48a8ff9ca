// Attention by BF16 dot products (Zen 4, Sapphire Rapids): twice the products of float32 in a cycle.
//
// A dot product takes two numbers of a lane, so two dimensions of the same token are brought together for scores, and two tokens of the same dimension for
// sums. That is done once for a block of the cache and serves all queries of a pass. Each query's arithmetic is the same whichever others are beside it.
#include "layer/attention_pass.h"

#if defined(__x86_64__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's headers make undefined vectors that way, and warn of it (GCC bug 105593)
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "layer/exp.h"

#define QB_D __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")))
#define QB_DI QB_D __attribute__((always_inline)) inline

namespace qb::layer {
namespace {

constexpr int64_t lanes = 16;
static_assert(tokens == 2 * lanes);

// Two rows of `count` numbers (a multiple of 16) as `count` pairs.
QB_DI void interleave(const uint16_t* even, const uint16_t* odd, int64_t count, uint32_t* pairs) {
  alignas(64) uint16_t order[2][32];
  for (uint16_t i = 0; i < 16; ++i) {
    for (uint16_t half = 0; half < 2; ++half) {
      order[half][2 * i] = static_cast<uint16_t>(half * 16 + i);
      order[half][2 * i + 1] = static_cast<uint16_t>(32 + half * 16 + i);
    }
  }
  const __m512i low = _mm512_load_si512(order[0]), high = _mm512_load_si512(order[1]);
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m512i a = _mm512_loadu_si512(even + i), b = _mm512_loadu_si512(odd + i);
    _mm512_storeu_si512(pairs + i, _mm512_permutex2var_epi16(a, low, b));
    _mm512_storeu_si512(pairs + i + lanes, _mm512_permutex2var_epi16(a, high, b));
  }
  if (i < count) {
    const __m512i a = _mm512_maskz_loadu_epi16(0xFFFFU, even + i), b = _mm512_maskz_loadu_epi16(0xFFFFU, odd + i);
    _mm512_storeu_si512(pairs + i, _mm512_permutex2var_epi16(a, low, b));
  }
}

// A block's numbers as bfloat16, exactly: in `room`, since the cache's bytes may lie anywhere.
QB_DI const uint16_t* as_bf16(const std::byte* p, Elem elem, int64_t count, uint16_t* room) {
  if (elem == Elem::bf16) {
    std::memcpy(room, p, static_cast<size_t>(count) * sizeof *room);
  } else {
    for (int64_t i = 0; i < count; ++i) room[i] = static_cast<uint16_t>(e4m3_bits(p[i]) >> 16);
  }
  return room;
}

// exp_f32 (exp.h) of numbers that are not above 0, with fused products; below -103 it goes over into 0. NaN stays NaN.
QB_DI __m512 exp_16(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-110.0F), x);
  const __m512 magic = _mm512_set1_ps(0x1.8p23F);
  const __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504088896341F), magic), magic);
  const __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4F), _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), x));
  __m512 y = _mm512_set1_ps(1.9875691500e-4F);
  for (const float c : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F}) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(c));
  const __m512 e = _mm512_add_ps(_mm512_fmadd_ps(y, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(e, n);
}

struct Sweeping {
  const Pass& p;
  int64_t dim;
  alignas(64) uint32_t keys[max_head_dim / 2 * tokens];      // [head_dim / 2, 32]
  alignas(64) uint32_t values[tokens / 2 * max_head_dim];    // [16, head_dim]
  alignas(64) uint16_t queries[max_queries * max_head_dim];  // [count, head_dim]
  alignas(64) uint16_t room[max_head_dim * tokens];
  alignas(64) float sums[max_queries * max_head_dim];  // [count, head_dim]
  float most[max_queries], total[max_queries];

  QB_DI void run() {
    const int64_t block_bytes = dim * tokens * bits(p.kv->elem) / 8;
    for (int64_t i = 0; i < p.count; ++i) {
      const Query& q = p.queries[i];
      most[i] = q.sink;
      total[i] = q.sink == nothing ? 0.0F : 1.0F;
      for (int64_t d = 0; d < dim; d += lanes) {
        _mm512_storeu_ps(sums + i * dim + d, _mm512_setzero_ps());
        const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_loadu_ps(q.q + d));
        std::memcpy(queries + i * dim + d, &narrow, sizeof narrow);
      }
    }
    const int64_t first = p.first(), last = p.last();
    for (int64_t b = first / tokens; b <= last / tokens; ++b) {
      const int64_t at = p.table[b] * p.kv->block_stride + p.head * block_bytes;
      const uint16_t* rows = as_bf16(p.kv->keys + at, p.kv->elem, dim * tokens, room);
      for (int64_t d = 0; d < dim; d += 2) interleave(rows + d * tokens, rows + (d + 1) * tokens, tokens, keys + d / 2 * tokens);
      rows = as_bf16(p.kv->values + at, p.kv->elem, dim * tokens, room);
      const int64_t begin = std::max(first - b * tokens, int64_t{0}), end = std::min(last - b * tokens + 1, tokens);
      pair_values(rows, begin, end);
      const bool finite = all_finite(rows + begin * dim, (end - begin) * dim);
      for (int64_t i = 0; i < p.count; i += 4) {
        switch (std::min<int64_t>(4, p.count - i)) {
          case 4:
            step<4>(i, b, finite, rows);
            break;
          case 3:
            step<3>(i, b, finite, rows);
            break;
          case 2:
            step<2>(i, b, finite, rows);
            break;
          default:
            step<1>(i, b, finite, rows);
        }
      }
    }
    for (int64_t i = 0; i < p.count; ++i) {
      const float factor = (p.kv->elem == Elem::e4m3 ? p.kv->v.scale : 1.0F) / total[i];
      for (int64_t d = 0; d < dim; ++d) p.queries[i].q[d] = sums[i * dim + d] * factor;
    }
  }

  // Values of tokens [begin, end) of a block; the others, which may be anything, are zero.
  QB_DI void pair_values(const uint16_t* rows, int64_t begin, int64_t end) {
    alignas(64) static constexpr uint16_t zeros[max_head_dim] = {};
    const auto row = [&](int64_t j) { return begin <= j && j < end ? rows + j * dim : zeros; };
    for (int64_t j = 0; j < tokens; j += 2) interleave(row(j), row(j + 1), dim, values + j / 2 * dim);
  }

  QB_DI static bool all_finite(const uint16_t* x, int64_t count) {
    uint16_t bad = 0;
    for (int64_t i = 0; i < count; ++i) bad |= (x[i] & 0x7F80U) == 0x7F80U ? 1 : 0;
    return bad == 0;
  }

  // Scores of 32 tokens with Q queries, each summed in order of the dimensions.
  template <int Q>
  QB_DI void dot_keys(int64_t first, __m512 (*scores)[2]) const {
    QB_UNROLL for (int q = 0; q < Q; ++q) scores[q][0] = scores[q][1] = _mm512_setzero_ps();
    const uint16_t* x = queries + first * dim;
    const uint32_t* key = keys;
    for (int64_t d = 0; d < dim; d += 2, key += tokens, x += 2) {
      const __m512i low = _mm512_load_si512(key), high = _mm512_load_si512(key + lanes);
      QB_UNROLL for (int q = 0; q < Q; ++q) {
        int pair;
        std::memcpy(&pair, x + q * dim, sizeof pair);
        const auto both = (__m512bh)_mm512_set1_epi32(pair);
        scores[q][0] = _mm512_dpbf16_ps(scores[q][0], (__m512bh)low, both);
        scores[q][1] = _mm512_dpbf16_ps(scores[q][1], (__m512bh)high, both);
      }
    }
  }

  // Of Q queries: sums = sums * keep + the values by weight, each summed in order of the tokens; N * 16 dimensions from d on.
  template <int Q, int N>
  QB_DI void add_values(int64_t first, const uint16_t (*weights)[tokens], const float* keep, int64_t d) {
    __m512 t[Q][N];
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      const __m512 factor = _mm512_set1_ps(keep[q]);
      QB_UNROLL for (int i = 0; i < N; ++i) t[q][i] = _mm512_mul_ps(_mm512_loadu_ps(sums + (first + q) * dim + d + i * lanes), factor);
    }
    for (int64_t j = 0; j < tokens; j += 2) {
      __m512i value[N];
      QB_UNROLL for (int i = 0; i < N; ++i) value[i] = _mm512_loadu_si512(values + j / 2 * dim + d + i * lanes);
      QB_UNROLL for (int q = 0; q < Q; ++q) {
        int pair;
        std::memcpy(&pair, weights[q] + j, sizeof pair);
        const auto both = (__m512bh)_mm512_set1_epi32(pair);
        QB_UNROLL for (int i = 0; i < N; ++i) t[q][i] = _mm512_dpbf16_ps(t[q][i], (__m512bh)value[i], both);
      }
    }
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      QB_UNROLL for (int i = 0; i < N; ++i) _mm512_storeu_ps(sums + (first + q) * dim + d + i * lanes, t[q][i]);
    }
  }
  template <int Q>
  QB_DI void add_all_values(int64_t first, const uint16_t (*weights)[tokens], const float* keep) {
    int64_t d = 0;
    for (; d + 4 * lanes <= dim; d += 4 * lanes) add_values<Q, 4>(first, weights, keep, d);
    for (; d < dim; d += lanes) add_values<Q, 1>(first, weights, keep, d);
  }

  // Adds what queries [first, first + Q) see of block b. A query that sees nothing of it has weights of zero.
  template <int Q>
  QB_DI void step(int64_t first, int64_t b, bool finite, const uint16_t* rows) {
    __m512 scores[Q][2];
    dot_keys<Q>(first, scores);
    alignas(64) float keep[lanes];
    __m512 kept = _mm512_setzero_ps();  // its exponents
    const __m512 scale = _mm512_set1_ps(p.scale);
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      const Query& query = p.queries[first + q];
      scores[q][0] = _mm512_mul_ps(scores[q][0], scale);
      scores[q][1] = _mm512_mul_ps(scores[q][1], scale);
      if (p.softcap > 0) cap(scores[q]);
      if (query.low > b * tokens || query.high < b * tokens + tokens - 1) hide(query, b, scores[q]);
      const float top = _mm512_reduce_max_ps(_mm512_max_ps(scores[q][0], scores[q][1])), before = most[first + q];
      const float now = top > before ? top : before, from = now == nothing ? 0.0F : now;
      most[first + q] = now;
      kept = _mm512_mask_mov_ps(kept, static_cast<__mmask16>(1U << q), _mm512_set1_ps(before - from));
      scores[q][0] = _mm512_sub_ps(scores[q][0], _mm512_set1_ps(from));
      scores[q][1] = _mm512_sub_ps(scores[q][1], _mm512_set1_ps(from));
    }
    _mm512_store_ps(keep, exp_16(kept));
    alignas(64) uint16_t weights[Q][tokens];
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      const __m512 low = exp_16(scores[q][0]), high = exp_16(scores[q][1]);
      total[first + q] = total[first + q] * keep[q] + _mm512_reduce_add_ps(_mm512_add_ps(low, high));
      const __m512bh narrow = _mm512_cvtne2ps_pbh(high, low);
      std::memcpy(weights[q], &narrow, sizeof narrow);
    }
    if (finite) return add_all_values<Q>(first, weights, keep);
    // Zero times infinity is not zero: each query gets a block of its own.
    for (int q = 0; q < Q; ++q) {
      const auto [begin, end] = visible(p.queries[first + q], b);
      pair_values(rows, begin, end);
      add_all_values<1>(first + q, weights + q, keep + q);
    }
  }

  struct Range {
    int64_t begin, end;
  };
  static Range visible(const Query& query, int64_t b) {
    const int64_t begin = std::clamp(query.low - b * tokens, int64_t{0}, tokens);
    return {begin, std::clamp(query.high - b * tokens + 1, begin, tokens)};
  }
  // What lies outside the visible range may be anything, NaN included.
  QB_DI static void hide(const Query& query, int64_t b, __m512* scores) {
    const auto [begin, end] = visible(query, b);
    const auto seen = static_cast<uint32_t>((uint64_t{1} << end) - (uint64_t{1} << begin));
    scores[0] = _mm512_mask_mov_ps(_mm512_set1_ps(nothing), static_cast<__mmask16>(seen), scores[0]);
    scores[1] = _mm512_mask_mov_ps(_mm512_set1_ps(nothing), static_cast<__mmask16>(seen >> 16), scores[1]);
  }

  QB_D __attribute__((noinline)) void cap(__m512* scores) const {
    alignas(64) float s[tokens];
    _mm512_store_ps(s, scores[0]);
    _mm512_store_ps(s + lanes, scores[1]);
    for (float& x : s) x = p.softcap * (1.0F - 2.0F / (exp_f32(2.0F * x / p.softcap) + 1.0F));  // tanh
    scores[0] = _mm512_load_ps(s);
    scores[1] = _mm512_load_ps(s + lanes);
  }
};

QB_D void sweep(const Pass& p) {
  Sweeping s{.p = p, .dim = p.kv->head_dim};
  s.run();
}

}  // namespace

Sweep bf16_dots(const KvLayer& kv) {
  return kv.elem != Elem::f32 && kv.head_dim % lanes == 0 ? sweep : nullptr;
}

}  // namespace qb::layer
#else
namespace qb::layer {
Sweep bf16_dots(const KvLayer&) {
  return nullptr;
}
}  // namespace qb::layer
#endif
