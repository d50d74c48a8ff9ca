// Attention by products in float32, in plain C++ that is compiled for each instruction set. Products and sums are rounded once where there are instructions
// that do that (cmake/layers.cmake), and totals are added up in as many parts as vectors have numbers: so each instruction set has its own last bits.
#include <algorithm>
#include <cstring>
#include <utility>

#include "layer/attention_pass.h"
#include "layer/exp.h"
#include "num/codec.h"

namespace qb::layer {
namespace {

// The binary32 bits of an E4M3 code, by arithmetic alone: of comparisons g++ makes branches, and no vector code. And without numbers that are subnormal, with
// which processors are slow.
QB_INLINE uint32_t e4m3_bits(std::byte b) {
  const auto code = static_cast<uint32_t>(b), magnitude = code & 0x7FU;
  const uint32_t usual = (magnitude << 20) + ((127U - 7U) << 23);                                                 // exponents above 0
  const uint32_t small = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-9F);  // exponent 0
  const uint32_t is_small = 0U - ((magnitude - 8U) >> 31), is_nan = 0U - ((magnitude + 1U) >> 7);                 // all bits or none
  return (usual & ~is_small) | (small & is_small) | (0x7FC00000U & is_nan) | (code & 0x80U) << 24;
}

// Whether all of the numbers are finite.
template <class Number>
QB_INLINE bool widen(int64_t count, float* __restrict out, const Number& number) {
  uint32_t most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t x = number(i), magnitude = x & f32_abs_mask;
    out[i] = std::bit_cast<float>(x);
    most = max_of(most, magnitude);
  }
  return most < f32_inf_bits;
}
QB_INLINE bool widen(const std::byte* p, Elem elem, int64_t count, float* __restrict out) {
  switch (elem) {
    case Elem::f32:
      return widen(
          count, out, [p](int64_t i) __attribute__((always_inline)) { return recipe::load<recipe::F32>(p, i); });
    case Elem::bf16:
      return widen(
          count, out, [p](int64_t i) __attribute__((always_inline)) { return uint32_t{recipe::load<recipe::Bf16>(p, i)} << 16; });
    default:
      return widen(
          count, out, [p](int64_t i) __attribute__((always_inline)) { return e4m3_bits(p[i]); });
  }
}

// Sums in arrays of vectors stay in registers where every loop over them is unrolled by pragma.
template <int lanes>
struct Lanes {
  typedef float Vector __attribute__((vector_size(4 * lanes)));  // g++ 12 takes no notice of the attribute in a `using`
  static_assert(sizeof(Vector) == 4 * lanes);
  // Not by value: what a vector is passed in depends on the instruction set.
  static QB_INLINE void load(const float* p, Vector& v) { std::memcpy(&v, p, sizeof v); }
  static QB_INLINE void store(float* p, const Vector& v) { std::memcpy(p, &v, sizeof v); }

  // Every lane becomes the largest.
  static QB_INLINE void spread_largest(Vector& v) { with_halves<lanes / 2>(v, std::make_integer_sequence<int, lanes>{}); }

 private:
  template <int half, int... lane>
  static QB_INLINE void with_halves(Vector& v, std::integer_sequence<int, lane...> all) {
    const Vector other = __builtin_shufflevector(v, v, (lane + half) % lanes...);
    v = other > v ? other : v;
    if constexpr (half > 1) with_halves<half / 2>(v, all);
  }
};

template <int... less, class F>
QB_INLINE void with_rest(int64_t rest, std::integer_sequence<int, less...>, const F& f) {
  ((rest == less + 1 ? f(std::integral_constant<int, less + 1>{}) : void()), ...);
}
// f(how many, the first) for queries that go together: as many as `most`, and less for those that are left over.
template <int most, class F>
QB_INLINE void in_groups(int64_t count, const F& f) {
  int64_t first = 0;
  for (; count - first >= most; first += most) f(std::integral_constant<int, most>{}, first);
  with_rest(
      count - first, std::make_integer_sequence<int, most - 1>{}, [&](auto q) __attribute__((always_inline)) { f(q, first); });
}

// How a pass goes with vectors of so many numbers: so many queries at once as registers hold the sums of. What is read serves them all, and none waits for what
// comes of its own. What becomes of a query does not depend on how many go along.
template <int lanes, int most>
struct FloatSweep {
  using L = Lanes<lanes>;
  using Vector = typename L::Vector;

  const Pass& p;
  const int64_t dim = p.kv->head_dim;
  alignas(64) float keys[max_head_dim * tokens];       // [head_dim, 32]
  alignas(64) float values[max_head_dim * tokens];     // [32, head_dim]
  alignas(64) float sums[max_queries * max_head_dim];  // [count, head_dim]
  alignas(64) float scores[max_queries * tokens];      // [count, 32], and the weights they become
  alignas(64) float totals[max_queries * lanes];       // [count, lanes]: sums of weights, and of the sink
  float largest[max_queries], now[max_queries], keep[max_queries];

  // Not an aggregate: the arrays are left as they are.
  explicit FloatSweep(const Pass& pass) : p(pass) {}
  static QB_INLINE void run(const Pass* pass) {
    FloatSweep sweep(*pass);
    sweep.run();
  }

 private:
  QB_INLINE void run() {
    const KvLayer& kv = *p.kv;
    const int64_t head_bytes = dim * tokens * bits(kv.elem) / 8, first = p.first(), last = p.last();
    std::fill_n(sums, p.count * dim, 0.0F);
    std::fill_n(totals, p.count * lanes, 0.0F);
    for (int64_t i = 0; i < p.count; ++i) {
      largest[i] = p.queries[i].sink;
      if (largest[i] != nothing) totals[i * lanes] = 1;
    }
    for (int64_t b = first / tokens; b <= last / tokens; ++b) {
      const int64_t at = p.table[b] * kv.block_stride + p.head * head_bytes;
      const Visible seen{std::max(first - b * tokens, int64_t{0}), std::min(last - b * tokens + 1, tokens)};  // by any query
      widen(kv.keys + at, kv.elem, dim * tokens, keys);
      in_groups<most>(
          p.count, [&](auto q, int64_t i) __attribute__((always_inline)) { dot_keys<q>(i); });
      weigh(b);
      const int64_t begin = seen.begin * dim, count = (seen.end - seen.begin) * dim;
      if (widen(kv.values + at + begin * bits(kv.elem) / 8, kv.elem, count, values + begin)) {
        in_groups<most>(
            p.count, [&](auto q, int64_t i) __attribute__((always_inline)) { add_values<q>(i, seen); });
      } else {
        // Zero times infinity is not zero.
        for (int64_t i = 0; i < p.count; ++i) add_values<1>(i, visible(p.queries[i], b));
      }
    }
    for (int64_t i = 0; i < p.count; ++i) {
      float total = 0;
      for (int64_t j = 0; j < lanes; ++j) total += totals[i * lanes + j];
      const float factor = (kv.elem == Elem::e4m3 ? kv.v.scale : 1.0F) / total;
      for (int64_t d = 0; d < dim; ++d) p.queries[i].q[d] = sums[i * dim + d] * factor;
    }
  }

  // Scores of 32 tokens with Q queries from `first` on, each summed in order of the dimension.
  template <int Q>
  QB_INLINE void dot_keys(int64_t first) {
    constexpr int64_t parts = tokens / lanes;
    Vector t[Q][parts];
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      QB_UNROLL for (int64_t i = 0; i < parts; ++i) t[q][i] = Vector{};
    }
    const float* from = keys;
    for (int64_t d = 0; d < dim; ++d, from += tokens) {
      Vector key[parts];
      QB_UNROLL for (int64_t i = 0; i < parts; ++i) L::load(from + i * lanes, key[i]);
      QB_UNROLL for (int q = 0; q < Q; ++q) {
        const float x = p.queries[first + q].q[d];
        QB_UNROLL for (int64_t i = 0; i < parts; ++i) t[q][i] += x * key[i];
      }
    }
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      QB_UNROLL for (int64_t i = 0; i < parts; ++i) L::store(scores + (first + q) * tokens + i * lanes, t[q][i]);
    }
  }

  // Scores with block b become weights, zero where a query sees nothing; sums become what is kept of them.
  QB_INLINE void weigh(int64_t b) {
    for (int64_t i = 0; i < p.count; ++i) {
      float* const s = scores + i * tokens;
      for (int64_t j = 0; j < tokens; ++j) s[j] *= p.scale;
      if (p.softcap > 0)
        for (int64_t j = 0; j < tokens; ++j) s[j] = p.softcap * (1.0F - 2.0F / (exp_f32(2.0F * s[j] / p.softcap) + 1.0F));  // tanh
      // What lies outside the visible range may be anything, NaN included.
      const auto [begin, end] = visible(p.queries[i], b);
      for (int64_t j = 0; j < begin; ++j) s[j] = nothing;
      for (int64_t j = end; j < tokens; ++j) s[j] = nothing;
      Vector top, more;
      L::load(s, top);
      for (int64_t j = lanes; j < tokens; j += lanes) {
        L::load(s + j, more);
        top = more > top ? more : top;
      }
      L::spread_largest(top);
      now[i] = top[0];
    }
    for (int64_t i = 0; i < p.count; ++i) {
      const float before = largest[i], after = now[i] > before ? now[i] : before;
      now[i] = after == nothing ? 0.0F : after;
      keep[i] = exp_f32(before - now[i]);
      largest[i] = after;
    }
    for (int64_t i = 0; i < p.count; ++i) {
      float *const s = scores + i * tokens, *const t = totals + i * lanes;
      for (int64_t j = 0; j < tokens; ++j) s[j] = exp_f32(s[j] - now[i]);
      Vector total, more;
      L::load(t, total);
      total *= keep[i];
      QB_UNROLL for (int64_t j = 0; j < tokens; j += lanes) {
        L::load(s + j, more);
        total += more;
      }
      L::store(t, total);
      if (keep[i] == 1) continue;  // as mostly, once a context is long
      for (int64_t d = 0; d < dim; ++d) sums[i * dim + d] *= keep[i];
    }
  }

  // Of Q queries: sums += the values of tokens in `range` by weight, each summed in order of the tokens: N * lanes dimensions from d on.
  template <int Q, int N>
  QB_INLINE void add_values(int64_t first, Visible range, int64_t d) {
    float* const to = sums + first * dim + d;
    const float* const weights = scores + first * tokens;
    Vector t[Q][N];
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      QB_UNROLL for (int i = 0; i < N; ++i) L::load(to + q * dim + i * lanes, t[q][i]);
    }
    const float* from = values + range.begin * dim + d;
    for (int64_t j = range.begin; j < range.end; ++j, from += dim) {
      Vector value[N];
      QB_UNROLL for (int i = 0; i < N; ++i) L::load(from + i * lanes, value[i]);
      QB_UNROLL for (int q = 0; q < Q; ++q) {
        const float weight = weights[q * tokens + j];
        QB_UNROLL for (int i = 0; i < N; ++i) t[q][i] += weight * value[i];
      }
    }
    QB_UNROLL for (int q = 0; q < Q; ++q) {
      QB_UNROLL for (int i = 0; i < N; ++i) L::store(to + q * dim + i * lanes, t[q][i]);
    }
  }
  template <int Q>
  QB_INLINE void add_values(int64_t first, Visible range) {
    constexpr int parts = Q == 1 ? 4 : 2;
    int64_t d = 0;
    for (; d + parts * lanes <= dim; d += parts * lanes) add_values<Q, parts>(first, range, d);
    for (; d + lanes <= dim; d += lanes) add_values<Q, 1>(first, range, d);
    for (; d < dim; ++d) {
      for (int64_t q = first; q < first + Q; ++q) {
        float sum = sums[q * dim + d];
        for (int64_t j = range.begin; j < range.end; ++j) sum += scores[q * tokens + j] * values[j * dim + d];
        sums[q * dim + d] = sum;
      }
    }
  }
};

template <Isa isa, int lanes, int most>
void sweep(const Pass& p) {
  recipe::run_at<FloatSweep<lanes, most>>(isa, &p);
}

}  // namespace

Sweep float_products(Isa isa) {
  return isa == Isa::avx512 ? sweep<Isa::avx512, 16, 8> : isa == Isa::avx2 ? sweep<Isa::avx2, 8, 3> : sweep<Isa::generic, 4, 1>;
}

}  // namespace qb::layer
