// Attention by products of BF16 numbers, for processors with AVX-512 and BF16 (Zen 4, Sapphire Rapids): all of a pass but the products themselves. For files
// that are compiled for x86-64 alone; everything has internal linkage.
//
// A product takes two numbers of a lane, so two dimensions of the same token are brought together for scores, and two tokens of the same dimension for sums.
// That is done once for a block of the cache and serves all queries of a pass. Each query's arithmetic is the same whichever others are beside it.
//
// A type of products has
//   explicit Products(dim)
//   static rows(count)   how many rows of queries, weights and sums it reads for so many; those behind the last are zero
//   dot_keys             scores of 32 tokens
//   add_values           sums * keep + the values by weight
#pragma once

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's headers make undefined vectors that way, and warn of it (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "layer/attention_pass.h"
#include "layer/exp.h"
#include "num/codec.h"

#define QB_D __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")))
#define QB_DI QB_D __attribute__((always_inline)) inline

namespace qb::layer {
namespace {

constexpr int64_t lanes = 16;
static_assert(tokens == 2 * lanes);

// f(Q) for Q of 1 to 4, as a constant.
template <class F>
QB_DI void with_number(int64_t q, const F& f) {
  switch (q) {
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    default:
      return f(std::integral_constant<int, 1>{});
  }
}

// Where the numbers of two rows go: the first 16 of both, and the last.
struct alignas(64) PairOrder {
  std::array<uint16_t, 32> low, high;
};
constexpr PairOrder pair_order = [] {
  PairOrder o{};
  for (uint16_t i = 0; i < 16; ++i) {
    for (uint16_t row = 0; row < 2; ++row) {
      o.low[2U * i + row] = static_cast<uint16_t>(32 * row + i);
      o.high[2U * i + row] = static_cast<uint16_t>(32 * row + 16 + i);
    }
  }
  return o;
}();

// Two rows of `count` numbers (a multiple of 16), which may lie anywhere, as `count` pairs.
QB_DI void interleave(const std::byte* even, const std::byte* odd, int64_t count, uint32_t* pairs) {
  const __m512i low = _mm512_load_si512(pair_order.low.data()), high = _mm512_load_si512(pair_order.high.data());
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m512i a = _mm512_loadu_si512(even + 2 * i), b = _mm512_loadu_si512(odd + 2 * i);
    _mm512_store_si512(pairs + i, _mm512_permutex2var_epi16(a, low, b));
    _mm512_store_si512(pairs + i + lanes, _mm512_permutex2var_epi16(a, high, b));
  }
  if (i < count) {
    const __m512i a = _mm512_maskz_loadu_epi16(0xFFFFU, even + 2 * i), b = _mm512_maskz_loadu_epi16(0xFFFFU, odd + 2 * i);
    _mm512_store_si512(pairs + i, _mm512_permutex2var_epi16(a, low, b));
  }
}

// 2^x of numbers that are not above 0, within 2 ulp; below -126 it is 0, since results that underflow take a processor thirty times as long. NaN stays NaN. The
// polynomial is the one of its degree, with 1 as the first coefficient, whose largest relative error on [0, 1] is least (8.3e-8).
constexpr float log2_e = 1.44269504088896341F;
QB_DI __m512 exp2_16(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  __m512 y = _mm512_set1_ps(1.867130050e-3F);
  for (const float c : {9.017030708e-3F, 5.579991266e-2F, 2.401644439e-1F, 6.931512952e-1F, 1.0F}) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(c));
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0F), _CMP_NLT_UQ), y, x);
}

// E4M3 codes of 32 bytes as bfloat16: the exponent's bias is another, and the numbers of exponent 0 are eight.
const std::array<uint16_t, 32> e4m3_subnormals = [] {
  std::array<uint16_t, 32> t{};
  for (uint8_t c = 0; c < 8; ++c) t[c] = encode_bf16(decode_e4m3(c));
  return t;
}();
QB_DI __m512i e4m3_as_bf16(const std::byte* codes) {
  const __m512i code = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  const __m512i magnitude = _mm512_and_si512(code, _mm512_set1_epi16(0x7F)), sign = _mm512_slli_epi16(_mm512_and_si512(code, _mm512_set1_epi16(0x80)), 8);
  __m512i n = _mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), _mm512_set1_epi16((127 - 7) << 7));
  n = _mm512_mask_permutexvar_epi16(n, _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(8)), magnitude, _mm512_loadu_si512(e4m3_subnormals.data()));
  n = _mm512_mask_mov_epi16(n, _mm512_cmpeq_epi16_mask(magnitude, _mm512_set1_epi16(0x7F)), _mm512_set1_epi16(0x7FC0));
  return _mm512_or_si512(n, sign);
}

struct Larger {
  QB_DI static __m512 of(__m512 x, __m512 y) { return _mm512_max_ps(x, y); }
};
struct Sum {
  QB_DI static __m512 of(__m512 x, __m512 y) { return _mm512_add_ps(x, y); }
};
// The largest, or the sum, of the 16 numbers of each of four vectors, half with half, in the four lanes that belong to it.
template <class Two>
QB_DI __m512 of_each(const __m512 (&v)[4]) {
  const __m512 low = Two::of(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xEE));
  const __m512 high = Two::of(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xEE));
  __m512 t = Two::of(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xDD));
  t = Two::of(t, _mm512_permute_ps(t, 0x4E));
  return Two::of(t, _mm512_permute_ps(t, 0xB1));
}
// Four numbers of memory, each in four lanes, and back.
QB_DI __m512 load_four(const float* p) {
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), _mm512_castps128_ps512(_mm_loadu_ps(p)));
}
QB_DI void store_four(float* p, __m512 v) {
  _mm_storeu_ps(p, _mm512_castps512_ps128(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), v)));
}

template <class Products>
struct Sweeping {
  const Pass& p;
  const int64_t dim = p.kv->head_dim;
  Products products{dim};
  alignas(64) uint32_t keys[max_head_dim / 2 * tokens];      // [head_dim / 2, 32]
  alignas(64) uint32_t values[tokens / 2 * max_head_dim];    // [16, head_dim]
  alignas(64) uint16_t queries[max_queries * max_head_dim];  // [rows, head_dim]
  alignas(64) uint16_t weights[max_queries * tokens];        // [rows, 32]
  alignas(64) float scores[max_queries * tokens];            // [rows, 32]
  alignas(64) float sums[max_queries * max_head_dim];        // [rows, head_dim]
  alignas(64) std::byte room[max_head_dim * tokens * sizeof(uint16_t)];
  float most[max_queries], total[max_queries], keep[max_queries];  // `most`, as scores in weigh(), is an exponent of 2
  static_assert(max_queries % lanes == 0);

  // Not an aggregate: the arrays are left as they are.
  explicit Sweeping(const Pass& pass) : p(pass) {}

  QB_DI void run() {
    begin();
    const int64_t block_bytes = dim * tokens * bits(p.kv->elem) / 8, first = p.first(), last = p.last();
    for (int64_t b = first / tokens; b <= last / tokens; ++b) {
      const int64_t at = p.table[b] * p.kv->block_stride + p.head * block_bytes;
      const std::byte* rows = as_bf16(p.kv->keys + at);
      for (int64_t d = 0; d < dim; d += 2) interleave(rows + 2 * d * tokens, rows + 2 * (d + 1) * tokens, tokens, keys + d / 2 * tokens);
      products.dot_keys(queries, p.count, keys, scores);
      for (int64_t i = 0; i < p.count; i += 4) with_number(std::min<int64_t>(4, p.count - i), [&](auto q) QB_D { weigh<q>(i, b); });
      rows = as_bf16(p.kv->values + at);
      pair_values(rows, std::max(first - b * tokens, int64_t{0}), std::min(last - b * tokens + 1, tokens));
      if (all_finite()) {
        products.add_values(weights, keep, p.count, values, sums);
      } else {
        // Zero times infinity is not zero: each query gets a block of its own.
        for (int64_t i = 0; i < p.count; ++i) {
          const auto [begin, end] = visible(p.queries[i], b);
          pair_values(rows, begin, end);
          products.add_values(weights + i * tokens, keep + i, 1, values, sums + i * dim);
        }
      }
    }
    for (int64_t i = 0; i < p.count; ++i) {
      const __m512 factor = _mm512_set1_ps((p.kv->elem == Elem::e4m3 ? p.kv->v.scale : 1.0F) / total[i]);
      for (int64_t d = 0; d < dim; d += lanes) _mm512_storeu_ps(p.queries[i].q + d, _mm512_mul_ps(_mm512_load_ps(sums + i * dim + d), factor));
    }
  }

  QB_DI void begin() {
    const int64_t rows = Products::rows(p.count);
    std::fill_n(sums, rows * dim, 0.0F);
    std::fill(queries + p.count * dim, queries + rows * dim, uint16_t{0});
    std::fill(weights + p.count * tokens, weights + rows * tokens, uint16_t{0});
    for (int64_t i = 0; i < p.count; ++i) {
      const Query& q = p.queries[i];
      most[i] = q.sink * log2_e;
      total[i] = q.sink == nothing ? 0.0F : 1.0F;
      for (int64_t d = 0; d < dim; d += lanes) {
        const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_loadu_ps(q.q + d));
        std::memcpy(queries + i * dim + d, &narrow, sizeof narrow);
      }
    }
  }

  // A block's numbers as bfloat16, exactly.
  QB_DI const std::byte* as_bf16(const std::byte* block) {
    if (p.kv->elem == Elem::bf16) return block;
    for (int64_t i = 0; i < dim * tokens; i += 2 * lanes) _mm512_store_si512(room + 2 * i, e4m3_as_bf16(block + i));
    return room;
  }

  // Values of tokens [begin, end) of a block; the others, which may be anything, are zero.
  QB_DI void pair_values(const std::byte* rows, int64_t begin, int64_t end) {
    alignas(64) static constexpr std::byte zeros[max_head_dim * sizeof(uint16_t)] = {};
    const auto row = [&](int64_t j) { return begin <= j && j < end ? rows + 2 * j * dim : zeros; };
    for (int64_t j = 0; j < tokens; j += 2) interleave(row(j), row(j + 1), dim, values + j / 2 * dim);
  }
  QB_DI bool all_finite() const {
    const __m512i exponent = _mm512_set1_epi16(0x7F80);
    __mmask32 bad = 0;
    for (int64_t i = 0; i < tokens / 2 * dim; i += lanes) bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(_mm512_load_si512(values + i), exponent), exponent);
    return bad == 0;
  }

  // What scores of queries [first, first + Q) with block b become: weights, and what is kept of the sums so far. A query that sees nothing of it has weights
  // of zero.
  template <int Q>
  QB_DI void weigh(int64_t first, int64_t b) {
    __m512 low[4] = {}, high[4] = {}, both[4] = {};
    const __m512 scale = _mm512_set1_ps(p.softcap > 0 ? p.scale : p.scale * log2_e);
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      const Query& query = p.queries[first + q];
      const float* const from = scores + (first + q) * tokens;
      low[q] = _mm512_mul_ps(_mm512_load_ps(from), scale);
      high[q] = _mm512_mul_ps(_mm512_load_ps(from + lanes), scale);
      if (p.softcap > 0) cap(low[q], high[q]);
      if (query.low > b * tokens || query.high < b * tokens + tokens - 1) hide(query, b, low[q], high[q]);
      both[q] = _mm512_max_ps(low[q], high[q]);
    }
    const __m512 top = of_each<Larger>(both);
    const __m512 before = load_four(most + first), now = _mm512_max_ps(top, before);
    const __m512 base = _mm512_mask_mov_ps(now, _mm512_cmp_ps_mask(now, _mm512_set1_ps(nothing), _CMP_EQ_OQ), _mm512_setzero_ps());
    const __m512 kept = exp2_16(_mm512_sub_ps(before, base));
    const __m512 bases[4] = {_mm512_shuffle_f32x4(base, base, 0x00), _mm512_shuffle_f32x4(base, base, 0x55), _mm512_shuffle_f32x4(base, base, 0xAA),
                             _mm512_shuffle_f32x4(base, base, 0xFF)};
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      low[q] = exp2_16(_mm512_sub_ps(low[q], bases[q]));
      high[q] = exp2_16(_mm512_sub_ps(high[q], bases[q]));
      both[q] = _mm512_add_ps(low[q], high[q]);
      const __m512bh narrow = _mm512_cvtne2ps_pbh(high[q], low[q]);
      std::memcpy(weights + (first + q) * tokens, &narrow, sizeof narrow);
    }
    const __m512 sum = of_each<Sum>(both);
    store_four(most + first, now);
    store_four(keep + first, kept);
    store_four(total + first, _mm512_add_ps(_mm512_mul_ps(load_four(total + first), kept), sum));
  }

  // What lies outside the visible range may be anything, NaN included.
  QB_DI static void hide(const Query& query, int64_t b, __m512& low, __m512& high) {
    const auto [begin, end] = visible(query, b);
    const auto seen = static_cast<uint32_t>((uint64_t{1} << end) - (uint64_t{1} << begin));
    low = _mm512_mask_mov_ps(_mm512_set1_ps(nothing), static_cast<__mmask16>(seen), low);
    high = _mm512_mask_mov_ps(_mm512_set1_ps(nothing), static_cast<__mmask16>(seen >> 16), high);
  }

  QB_D __attribute__((noinline)) void cap(__m512& low, __m512& high) const {
    alignas(64) float s[tokens];
    _mm512_store_ps(s, low);
    _mm512_store_ps(s + lanes, high);
    for (float& x : s) x = log2_e * p.softcap * (1.0F - 2.0F / (exp_f32(2.0F * x / p.softcap) + 1.0F));  // tanh
    low = _mm512_load_ps(s);
    high = _mm512_load_ps(s + lanes);
  }
};

template <class Products>
QB_D void sweep(const Pass& p) {
  Sweeping<Products> s(p);
  s.run();
}

// Null for a cache that this does not read: float32, or heads not of a multiple of 16 numbers.
template <class Products>
Sweep sweep_of(const KvLayer& kv) {
  return kv.elem != Elem::f32 && kv.head_dim % lanes == 0 ? sweep<Products> : nullptr;
}

}  // namespace
}  // namespace qb::layer
