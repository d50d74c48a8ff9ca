// One pass of a few queries over their context: what attention() hands to the loops that are made for an instruction set.
//
// Goals: the queries of one KV head, each with what it sees; loops that leave the results in place of the queries.
// Non-goals: which queries go together, and on which thread (attention.cc).
#pragma once

#include <algorithm>

#include "layer/attention.h"
#include "num/isa.h"
#include "recipe/loops.h"

#define QB_UNROLL _Pragma("GCC unroll 16")

namespace qb::layer {

inline constexpr int64_t tokens = kv_block_tokens;
inline constexpr int64_t max_queries = 64;  // that one pass over the context serves
inline constexpr float nothing = -__builtin_inff();

struct Query {
  float* q;           // in and out, [head_dim]
  int64_t low, high;  // visible positions, both included
  float sink;         // a score without a value; `nothing`: none
};

// Tokens of a block that a query sees: none where they begin at their end.
struct Visible {
  int64_t begin, end;
};
QB_INLINE Visible visible(const Query& query, int64_t block) {
  const int64_t begin = std::clamp(query.low - block * tokens, int64_t{0}, tokens);
  return {begin, std::clamp(query.high - block * tokens + 1, begin, tokens)};
}

struct Pass {
  const KvLayer* kv;
  const int32_t* table;
  int64_t head;  // KV head
  const Query* queries;
  int64_t count;
  float scale, softcap;  // of scores

  // Visible positions of all together.
  int64_t first() const {
    int64_t p = queries[0].low;
    for (int64_t i = 1; i < count; ++i) p = queries[i].low < p ? queries[i].low : p;
    return p;
  }
  int64_t last() const {
    int64_t p = queries[0].high;
    for (int64_t i = 1; i < count; ++i) p = queries[i].high > p ? queries[i].high : p;
    return p;
  }
};

using Sweep = void (*)(const Pass&);
Sweep float_products(Isa);
// By BF16 products, on processors with host::Feature::avx512_bf16, and amx_bf16 for tiles: queries, and weights before they meet values, are rounded to BF16,
// as keys and values in the cache are. Null where it was not compiled, or for a cache that it does not read: float32, or heads not of a multiple of 16 numbers.
Sweep bf16_dots(const KvLayer&);   // attention_bf16.cc
Sweep bf16_tiles(const KvLayer&);  // attention_amxbf16.cc

// attention() with the loops that are given.
void attention_by(Sweep, const AttentionArgs&, host::ThreadPool&);

}  // namespace qb::layer
