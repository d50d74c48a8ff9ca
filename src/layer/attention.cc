
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "layer/attention_pass.h"
#include "num/codec.h"
#include "recipe/loops.h"

namespace qb::layer {
namespace {

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

void attention(const AttentionArgs& a, host::Feature features, host::ThreadPool& pool) {
  using host::Feature;
  Sweep sweep = host::covers(features, Feature::avx512_bf16 | Feature::amx_bf16) ? bf16_tiles(a.kv)
                : host::covers(features, Feature::avx512_bf16)                   ? bf16_dots(a.kv)
                                                                                 : nullptr;
  if (sweep == nullptr) sweep = float_products(host::isa_of(features));
  attention_by(sweep, a, pool);
}

void attention_by(Sweep sweep, const AttentionArgs& a, host::ThreadPool& pool) {
  for_tiles(a, tile_tokens(a), pool, [&](const Tile& t) {
    const int64_t group = a.heads / a.kv.kv_heads;
    Query queries[max_queries];
    Pass pass{.kv = &a.kv, .table = t.run->table.data(), .head = t.head, .queries = queries, .count = 0, .scale = 0, .softcap = a.softcap};
    pass.scale = score_scale(a) * (a.kv.elem == Elem::e4m3 ? a.kv.k.scale : 1.0F);
    for (int64_t token = t.begin; token < t.end; ++token)
      for (int64_t h = 0; h < group; ++h) {
        queries[pass.count++] = query_at(a, *t.run, token, t.head * group + h);
        if (pass.count < max_queries && (token + 1 < t.end || h + 1 < group)) continue;
        sweep(pass);
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

// What lies in a slot of a block of the cache for one head: encode(x, scales) of each number.
template <class Number, class Encode>
void put_head(const KvLayer& kv, int64_t block, int64_t slot, int64_t head, const float* key, const float* value, const Encode& encode) {
  const int64_t dim = kv.head_dim;
  Number codes[max_head_dim];
  for (int64_t d = 0; d < dim; ++d) codes[d] = encode(key[d], kv.k);
  for (int64_t d = 0; d < dim; ++d) recipe::store(kv.keys + block, (head * dim + d) * tokens + slot, codes[d]);
  for (int64_t d = 0; d < dim; ++d) codes[d] = encode(value[d], kv.v);
  std::memcpy(kv.values + block + (head * tokens + slot) * dim * static_cast<int64_t>(sizeof(Number)), codes, static_cast<size_t>(dim) * sizeof(Number));
}

}  // namespace

void store_kv(const KvLayer& kv, std::span<const int32_t> table, int64_t position, const float* key, const float* value) {
  const int64_t block = table[static_cast<size_t>(position / tokens)] * kv.block_stride, slot = position % tokens;
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
    switch (kv.elem) {
      case Elem::e4m3:
        put_head<uint8_t>(
            kv, block, slot, h, k, v, [](float x, const KvScales& s) __attribute__((always_inline)) {
              const auto b = std::bit_cast<uint32_t>(x / s.scale);
              return static_cast<uint8_t>(recipe::e4m3_code<true>(b & f32_abs_mask) | (b >> 24 & 0x80U));
            });
        break;
      case Elem::bf16:
        put_head<uint16_t>(
            kv, block, slot, h, k, v, [](float x, const KvScales&) __attribute__((always_inline)) { return bf16_code(x); });
        break;
      default:
        put_head<float>(
            kv, block, slot, h, k, v, [](float x, const KvScales&) __attribute__((always_inline)) { return x; });
        break;
    }
  }
}

}  // namespace qb::layer
