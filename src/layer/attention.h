// Grouped-query attention over the paged KV cache: causal, with an optional sliding window, softmax in float32.
//
// A block of the cache holds 32 tokens of one layer. Keys lie [kv_heads, head_dim, 32], so that the scores of 32 tokens are computed side by side and nothing
// is summed across lanes; values lie [kv_heads, 32, head_dim]. Numbers are float32, bf16, or E4M3 with a scale for the layer.
//
// Each query goes through the blocks from its first visible position to its own, with a running maximum and sum: what it gets depends on nothing but its own
// position and the cache, so chunks, batches and the number of threads change no bit. Rejected: splitting one query's context over threads (the sum would
// depend on the split).
//
// Where the processor has BF16 products, by tiles or in vectors, and the cache is not float32, queries are rounded to BF16 like the keys they meet, and weights
// like the values: faster, and at most twice the error that the cache's own rounding makes. Elsewhere products are float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "host/cpu.h"
#include "host/threads.h"
#include "layer/observer.h"
#include "num/elem.h"

namespace qb::layer {

inline constexpr int64_t kv_block_tokens = 32;
inline constexpr int64_t max_head_dim = 256;

// How numbers are rounded on their way into the cache, where its own format does not do that. With a bias b for each channel, x becomes round(x - b) + b.
//   fp8    e4m3(x / s) * s
//   int8   clamp(round(x / s)) * s
//   nvfp4  over 16 of a head: g = s / 6, b = e4m3(amax / 6 / g), e2m1(x / (b g)) * b g
enum class KvRounding : uint8_t { none, fp8, int8, nvfp4 };
struct KvScales {
  float scale = 1;
  const float* by_head = nullptr;  // [kv_heads]; null: `scale` for all
  const float* bias = nullptr;     // [kv_heads, head_dim]; null: none
  Observer* observer = nullptr;    // of the numbers before they are stored
  void observe(const float* x, int64_t rows, int64_t width) const {
    if (observer != nullptr) observer->see(x, rows, width);
  }
};

// One layer of the cache.
struct KvLayer {
  std::byte* keys = nullptr;    // of block 0
  std::byte* values = nullptr;  // of block 0
  int64_t block_stride = 0;     // bytes from a block of this layer to the next
  Elem elem = Elem::bf16;       // f32, bf16 or e4m3
  int64_t kv_heads = 0, head_dim = 0;
  KvScales k, v;                          // an E4M3 cache has one scale for the layer
  KvRounding through = KvRounding::none;  // f32 and bf16 only
};

// Stores the key and the value ([kv_heads, head_dim] each, the key after rope) of one token.
void store_kv(const KvLayer& layer, std::span<const int32_t> table, int64_t position, const float* key, const float* value);

// Tokens of one sequence that follow each other.
struct AttentionRun {
  std::span<const int32_t> table;  // blocks of the sequence
  int64_t first_row = 0;           // of q
  int64_t first_position = 0;
  int64_t count = 0;
};

struct AttentionArgs {
  KvLayer kv;
  int64_t heads = 0;             // a multiple of kv_heads
  int64_t window = 0;            // tokens that are visible, the own one among them; 0: all
  float scale = 0;               // of scores; 0: one over the root of head_dim
  float softcap = 0;             // scores are bent to stay below it: cap * tanh(score / cap); 0: they are not
  const float* sinks = nullptr;  // [heads]: a score of each head that takes part in the softmax and has no value; null: none
  float* q = nullptr;            // [rows, heads, head_dim]: queries after rope, overwritten with the result
  std::span<const AttentionRun> runs;
};

void attention(const AttentionArgs& args, host::Feature features, host::ThreadPool& pool);
// The same by the plain formula: two passes over the context, sums in double. For float32 caches.
void attention_reference(const AttentionArgs& args, host::ThreadPool& pool);

}  // namespace qb::layer
