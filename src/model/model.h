// A model at run time: one file for each architecture, found through the manifest (QB_MODEL). Forward takes a ragged batch, even for one sequence.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "dialect/dialect.h"
#include "exec/context.h"
#include "host/arena.h"
#include "host/threads.h"
#include "ir/checkpoint.h"
#include "layer/linear.h"

namespace qb::model {

// Keys and values of all sequences, in blocks of `block_tokens` tokens. One block holds, for one layer, block_tokens x kv_heads x head_dim keys and as many values.
// bf16, or E4M3 with the checkpoint's per-layer scales; float32 in reference mode.
class KvCache {
 public:
  struct Shape { int64_t layers, kv_heads, head_dim; };
  static constexpr int64_t block_tokens = 32;
  static Result<KvCache> make(Shape shape, Elem elem, int64_t blocks, host::Arena& arena);
  Shape shape() const { return shape_; }
  Elem elem() const { return elem_; }
  int64_t blocks() const { return blocks_; }
  std::byte* keys(int64_t layer, int64_t block);    // [block_tokens, kv_heads, head_dim]
  std::byte* values(int64_t layer, int64_t block);

 private:
  Shape shape_{};
  Elem elem_ = Elem::bf16;
  int64_t blocks_ = 0;
  std::span<std::byte> bytes_;
};

// Sequences of one forward: tokens of sequence s are [offsets[s], offsets[s+1]) of ids and positions; its keys and values are in the cache blocks
// table[s][0], table[s][1], ... in order of position.
struct Batch {
  std::span<const int32_t> ids, positions, offsets;
  std::span<const std::span<const int32_t>> table;
  bool all_logits = false;  // logits of every token, not only of each sequence's last
};

struct Options {
  layer::LinearOptions linear;
  bool quantized_kv = true;  // as the checkpoint's KV scheme says
  bool reference = false;    // float32 throughout, float32 KV cache (E4M3 values still rounded through E4M3 where the checkpoint has a KV scheme)
};

class Model {
 public:
  virtual ~Model() = default;
  virtual KvCache::Shape kv_shape() const = 0;
  virtual Elem kv_elem() const = 0;
  virtual int64_t vocab() const = 0;
  virtual int64_t max_positions() const = 0;
  // Rows of logits [rows, vocab] float32: one for each sequence, or for each token. Buffers grow to the largest batch seen; a decode step allocates nothing.
  virtual Result<std::span<const float>> forward(const Batch& batch, KvCache& cache) = 0;
  virtual size_t resident_bytes() const = 0;  // packed weights
  virtual std::vector<std::pair<std::string, const layer::Linear*>> linears() const = 0;
};

struct Loading {
  const Package& package;
  const ir::Checkpoint& checkpoint;
  host::Arena& arena;
  host::ThreadPool& pool;
  Context& context;
  Options options;
};

struct Architecture {
  std::string_view name;
  std::span<const std::string_view> families;  // arch::Family names that it runs
  Result<std::unique_ptr<Model>> (*load)(const Loading&);
};
std::span<const Architecture* const> architectures();  // the generated manifest
Result<std::unique_ptr<Model>> load(const Loading&);

}  // namespace qb::model

#define QB_MODEL(stem)                     \
  extern const Architecture model_##stem;  \
  const Architecture model_##stem
