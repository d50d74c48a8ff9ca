#include "layer/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "layer/exp.h"
#include "num/codec.h"
#include "recipe/loops.h"

#define QB_UNROLL _Pragma("GCC unroll 16")

namespace qb::layer {
namespace {

constexpr int64_t tokens = kv_block_tokens;
constexpr int64_t max_queries = 64;  // that one pass over the context serves
constexpr float nothing = -__builtin_inff();

struct Query {
  float* q;           // in and out
  int64_t low, high;  // visible positions, both included
  float sink;         // a score without a value
};

// One pass of up to max_queries queries of one KV head over their context.
struct Pass {
  const KvLayer* kv;
  const int32_t* table;
  int64_t head;
  const Query* queries;
  int64_t count;
  float scale, softcap;  // of scores
  // Buffers of the caller.
  float* keys;    // [head_dim, 32]
  float* values;  // [32, head_dim]
  float* sums;    // [count, head_dim]
};

QB_INLINE void widen(const std::byte* p, Elem elem, int64_t count, float* __restrict out) {
  if (elem == Elem::f32) {
    std::memcpy(out, p, static_cast<size_t>(count) * sizeof(float));
  } else if (elem == Elem::bf16) {
    for (int64_t i = 0; i < count; ++i) out[i] = recipe::Bf16::value(recipe::load<recipe::Bf16>(p, i));
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const auto code = static_cast<uint32_t>(p[i]);
      out[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(recipe::e4m3_value(code & 0x7FU)) | (code & 0x80U) << 24);
    }
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
struct Sweep {
  static QB_INLINE void run(const Pass* p) {
    const KvLayer& kv = *p->kv;
    const int64_t dim = kv.head_dim, head_bytes = dim * tokens * bits(kv.elem) / 8;
    float most[max_queries], total[max_queries];
    int64_t first = p->queries[0].low, last = p->queries[0].high;
    for (int64_t i = 0; i < p->count; ++i) {
      most[i] = p->queries[i].sink;
      total[i] = most[i] == nothing ? 0.0F : 1.0F;
      for (int64_t d = 0; d < dim; ++d) p->sums[i * dim + d] = 0;
      first = std::min(first, p->queries[i].low);
      last = std::max(last, p->queries[i].high);
    }
    for (int64_t b = first / tokens; b <= last / tokens; ++b) {
      const int64_t at = p->table[b] * kv.block_stride + p->head * head_bytes;
      widen(kv.keys + at, kv.elem, dim * tokens, p->keys);
      widen(kv.values + at, kv.elem, dim * tokens, p->values);
      for (int64_t i = 0; i < p->count; i += together) step(p, i, std::min<int64_t>(together, p->count - i), b, most + i, total + i);
    }
    for (int64_t i = 0; i < p->count; ++i) {
      const float factor = (kv.elem == Elem::e4m3 ? kv.v.scale : 1.0F) / total[i];
      for (int64_t d = 0; d < dim; ++d) p->queries[i].q[d] = p->sums[i * dim + d] * factor;
    }
  }

  // Adds the tokens of block b that queries [first, first + count) see.
  static QB_INLINE void step(const Pass* p, int64_t first, int64_t count, int64_t b, float* most, float* total) {
    alignas(64) float all[together * tokens];
    const Query* const queries = p->queries + first;
    const int64_t dim = p->kv->head_dim;
    int64_t done = 0;
    if (count == together) dot_keys<together>(queries, p->keys, dim, all), done = count;
    for (; done < count; ++done) dot_keys<1>(queries + done, p->keys, dim, all + done * tokens);
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
      sums[s] = p->sums + (first + query) * dim;
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
    if (alike) return add_all_values<together>(weights, seeing[0].begin, seeing[0].end, p->values, dim, keep, sums);
    for (int s = 0; s < seen; ++s) add_all_values<1>(weights + s, seeing[s].begin, seeing[s].end, p->values, dim, keep + s, sums + s);
  }
};

// A tile of tokens of one run with one KV head.
struct Tile {
  const AttentionRun* run;
  int64_t begin, end;  // tokens of the run
  int64_t head;        // KV head
};

int64_t tile_tokens(const AttentionArgs& a) {
  return std::max<int64_t>(1, max_queries / (a.heads / a.kv.kv_heads));
}

int64_t tiles_of(const AttentionRun& run, int64_t height) {
  return (run.count + height - 1) / height;
}

// Hands every tile to one thread, late tiles first: they have the longest context.
template <class F>
void for_tiles(const AttentionArgs& a, int64_t height, host::ThreadPool& pool, const F& f) {
  int64_t all = 0;
  for (const AttentionRun& r : a.runs) all += tiles_of(r, height) * a.kv.kv_heads;
  if (all == 0) return;
  struct State {
    const AttentionArgs& a;
    const F& f;
    int64_t height;
    std::atomic<int64_t> left;
  } state{a, f, height, all};
  const auto work = [&state](int) {
    for (int64_t i = state.left.fetch_sub(1) - 1; i >= 0; i = state.left.fetch_sub(1) - 1) {
      const int64_t head = i % state.a.kv.kv_heads;
      int64_t tile = i / state.a.kv.kv_heads;
      const AttentionRun* run = state.a.runs.data();
      for (; tile >= tiles_of(*run, state.height); ++run) tile -= tiles_of(*run, state.height);
      state.f(Tile{run, tile * state.height, std::min(run->count, (tile + 1) * state.height), head});
    }
  };
  if (all == 1) return work(0);
  pool.run(work);
}

// The visible positions of a token.
Query query_at(const AttentionArgs& a, const AttentionRun& run, int64_t token, int64_t head) {
  const int64_t position = run.first_position + token;
  return {a.q + ((run.first_row + token) * a.heads + head) * a.kv.head_dim, a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0, position,
          a.sinks == nullptr ? nothing : a.sinks[head]};
}

float score_scale(const AttentionArgs& a) {
  return a.scale != 0 ? a.scale : static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.kv.head_dim)));
}

}  // namespace

void attention(const AttentionArgs& a, Isa isa, host::ThreadPool& pool) {
  for_tiles(a, tile_tokens(a), pool, [&](const Tile& t) {
    alignas(64) float keys[max_head_dim * tokens], values[max_head_dim * tokens], sums[max_queries * max_head_dim];
    const int64_t group = a.heads / a.kv.kv_heads;
    Query queries[max_queries];
    Pass pass{.kv = &a.kv, .table = t.run->table.data(), .head = t.head, .queries = queries, .count = 0, .keys = keys, .values = values, .sums = sums};
    pass.softcap = a.softcap;
    pass.scale = score_scale(a) * (a.kv.elem == Elem::e4m3 ? a.kv.k.scale : 1.0F);
    for (int64_t token = t.begin; token < t.end; ++token)
      for (int64_t h = 0; h < group; ++h) {
        queries[pass.count++] = query_at(a, *t.run, token, t.head * group + h);
        if (pass.count < max_queries && (token + 1 < t.end || h + 1 < group)) continue;
        isa == Isa::avx512 ? recipe::run_at<Sweep<4>>(isa, &pass) : recipe::run_at<Sweep<2>>(isa, &pass);
        pass.count = 0;
      }
  });
}

void attention_reference(const AttentionArgs& a, host::ThreadPool& pool) {
  for_tiles(a, 1, pool, [&](const Tile& t) {
    const int64_t dim = a.kv.head_dim, group = a.heads / a.kv.kv_heads, head_floats = dim * tokens;
    const auto block = [&](std::byte* of, int64_t position) {
      return reinterpret_cast<const float*>(of + t.run->table[static_cast<size_t>(position / tokens)] * a.kv.block_stride) + t.head * head_floats;
    };
    for (int64_t h = 0; h < group; ++h) {
      const Query query = query_at(a, *t.run, t.begin, t.head * group + h);
      const auto score = [&](int64_t position) {
        const float* key = block(a.kv.keys, position) + position % tokens;
        double dot = 0;
        for (int64_t d = 0; d < dim; ++d) dot += static_cast<double>(query.q[d]) * static_cast<double>(key[d * tokens]);
        dot *= static_cast<double>(score_scale(a));
        const auto cap = static_cast<double>(a.softcap);
        return cap > 0 ? cap * std::tanh(dot / cap) : dot;
      };
      const auto sink = static_cast<double>(query.sink);
      double most = std::max(sink, score(query.low));
      for (int64_t j = query.low + 1; j <= query.high; ++j) most = std::max(most, score(j));
      double total = std::exp(sink - most);
      double sums[max_head_dim] = {};
      for (int64_t j = query.low; j <= query.high; ++j) {
        const double weight = std::exp(score(j) - most);
        const float* value = block(a.kv.values, j) + j % tokens * dim;
        total += weight;
        for (int64_t d = 0; d < dim; ++d) sums[d] += weight * static_cast<double>(value[d]);
      }
      for (int64_t d = 0; d < dim; ++d) query.q[d] = static_cast<float>(sums[d] / total);
    }
  });
}

namespace {

// The numbers of one head as the cache's scheme leaves them.
void round_head(KvRounding how, const KvScales& s, int64_t head, int64_t dim, float* x) {
  const float scale = s.by_head != nullptr ? s.by_head[head] : s.scale;
  const float* bias = s.bias != nullptr ? s.bias + head * dim : nullptr;
  if (bias != nullptr)
    for (int64_t d = 0; d < dim; ++d) x[d] -= bias[d];
  switch (how) {
    case KvRounding::none:
      break;
    case KvRounding::fp8:
      for (int64_t d = 0; d < dim; ++d) x[d] = decode_e4m3(encode_e4m3_sat(x[d] / scale)) * scale;
      break;
    case KvRounding::int8:
      for (int64_t d = 0; d < dim; ++d) x[d] = std::clamp(std::nearbyint(x[d] / scale), -128.0F, 127.0F) * scale;
      break;
    case KvRounding::nvfp4: {
      const float global = scale / 6;
      for (int64_t first = 0; first < dim; first += 16) {
        const int64_t end = std::min(first + 16, dim);
        float most = 0;
        for (int64_t d = first; d < end; ++d) most = std::fabs(x[d]) > most ? std::fabs(x[d]) : most;
        const float step = decode_e4m3(encode_e4m3_sat(most / 6 / global)) * global;
        for (int64_t d = first; d < end; ++d) x[d] = step == 0 ? 0 : decode_e2m1(encode_e2m1(x[d] / step)) * step;
      }
      break;
    }
  }
  if (bias != nullptr)
    for (int64_t d = 0; d < dim; ++d) x[d] += bias[d];
}

}  // namespace

void store_kv(const KvLayer& kv, std::span<const int32_t> table, int64_t position, const float* key, const float* value) {
  const int64_t block = table[static_cast<size_t>(position / tokens)] * kv.block_stride, slot = position % tokens;
  const auto put = [&](std::byte* base, int64_t i, float x, float scale) {
    if (kv.elem == Elem::e4m3) {
      recipe::store(base, i, encode_e4m3_sat(x / scale));
    } else if (kv.elem == Elem::bf16) {
      recipe::store(base, i, encode_bf16(x));
    } else {
      recipe::store(base, i, x);
    }
  };
  float rounded[2][max_head_dim];
  for (int64_t h = 0; h < kv.kv_heads; ++h) {
    const float *k = key + h * kv.head_dim, *v = value + h * kv.head_dim;
    if (kv.through != KvRounding::none) {
      std::copy_n(k, kv.head_dim, rounded[0]);
      std::copy_n(v, kv.head_dim, rounded[1]);
      round_head(kv.through, kv.k, h, kv.head_dim, rounded[0]);
      round_head(kv.through, kv.v, h, kv.head_dim, rounded[1]);
      k = rounded[0];
      v = rounded[1];
    }
    for (int64_t d = 0; d < kv.head_dim; ++d) {
      put(kv.keys + block, (h * kv.head_dim + d) * tokens + slot, k[d], kv.k.scale);
      put(kv.values + block, (h * tokens + slot) * kv.head_dim + d, v[d], kv.v.scale);
    }
  }
}

}  // namespace qb::layer
