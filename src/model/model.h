// A model at run time: one file for each architecture, found through the manifest (QB_MODEL). Forward takes a ragged batch, even for one sequence.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "arch/parallel.h"
#include "base/json_fwd.h"
#include "base/result.h"
#include "exec/context.h"
#include "host/arena.h"
#include "host/communicator.h"
#include "host/threads.h"
#include "io/package.h"
#include "ir/checkpoint.h"
#include "layer/attention.h"
#include "layer/linear.h"

namespace qb::model {

// Keys and values of all sequences, in blocks of `block_tokens` tokens. One block holds, for each layer, kv_heads x head_dim x block_tokens keys and kv_heads x
// block_tokens x head_dim values (layer/attention.h says why they lie differently). bf16, or E4M3 with the checkpoint's per-layer scales; float32 in reference
// mode. Pages of blocks that were never written cost no memory.
class KvCache {
 public:
  struct Shape {
    int64_t layers = 0, kv_heads = 0, head_dim = 0;
    friend bool operator==(const Shape&, const Shape&) = default;
  };
  static constexpr int64_t block_tokens = layer::kv_block_tokens;
  static Result<KvCache> make(Shape shape, Elem elem, int64_t blocks, host::Arena& arena);
  Shape shape() const { return shape_; }
  Elem elem() const { return elem_; }
  int64_t blocks() const { return blocks_; }
  size_t bytes() const { return bytes_.size(); }
  std::byte* keys(int64_t layer, int64_t block) { return bytes_.data() + (block * shape_.layers + layer) * 2 * half_bytes(); }
  std::byte* values(int64_t layer, int64_t block) { return keys(layer, block) + half_bytes(); }
  // Bytes from a block of a layer to the layer's next block.
  int64_t block_stride() const { return shape_.layers * 2 * half_bytes(); }

 private:
  int64_t half_bytes() const { return block_tokens * shape_.kv_heads * shape_.head_dim * bits(elem_) / 8; }
  Shape shape_{};
  Elem elem_ = Elem::bf16;
  int64_t blocks_ = 0;
  std::span<std::byte> bytes_;
};

// Sequences of one forward: tokens of sequence s are [offsets[s], offsets[s+1]) of ids and positions (at least one, positions ascend by one); its keys and
// values are in the cache blocks table[s][0], table[s][1], ... in order of position, those of earlier positions from earlier forwards.
struct Batch {
  std::span<const int32_t> ids, positions, offsets;
  std::span<const std::span<const int32_t>> table;
  bool all_logits = false;  // logits of every token, not only of each sequence's last
  // For each sequence the length that rope scaling goes by where it depends on one (dynamic, longrope): the whole prompt's, when it comes in several forwards.
  // Empty: up to the sequence's last token here.
  std::span<const int32_t> lengths;
};

struct Options {
  layer::LinearOptions linear;
  bool quantized_kv = true;   // as the checkpoint's KV scheme says
  bool every_expert = false;  // as in layer::Tools
  bool exact_inputs = false;  // what the scheme does not quantize stays float32 on its way into a linear, also in fast kernels
  bool wide_kv = false;       // a float32 KV cache: numbers of a KV scheme, if there is one, are still rounded to its
  bool reference = false;     // float32 throughout, float32 KV cache (E4M3 values still rounded through E4M3 where the checkpoint has a KV scheme)
};

class DecoderBuilder;

class Model {
 public:
  virtual ~Model() = default;
  virtual KvCache::Shape kv_shape() const = 0;
  virtual Elem kv_elem() const = 0;
  virtual int64_t vocab() const = 0;
  virtual int64_t max_positions() const = 0;
  // Rows of logits [rows, vocab] float32: one for each sequence, or for each token; valid until the next call. Buffers grow to the largest batch seen; a decode
  // step allocates nothing. Errors name what is wrong with the batch.
  virtual Result<std::span<const float>> forward(const Batch& batch, KvCache& cache) = 0;
  virtual size_t resident_bytes() const = 0;  // packed weights
  virtual std::vector<std::pair<std::string, const layer::Linear*>> linears() const = 0;
};

// A model gone through layer by layer, with one layer's weights in memory at a time: sequences are embedded, and then all of them go through the first layer,
// all of them through the second, ... What is between layers is the caller's. Numbers are float32 throughout (but for the weights), keys and values too. Not
// thread-safe.
class LayerStream {
 public:
  enum class Half : uint8_t { attention, feed_forward };

  virtual ~LayerStream() = default;
  virtual int64_t layers() const = 0;
  virtual int64_t hidden() const = 0;
  virtual int64_t max_positions() const = 0;
  virtual Result<void> load_embedding() = 0;
  // x: [ids.size(), hidden]. Errors: an id outside the vocabulary.
  virtual Result<void> embed(std::span<const int32_t> ids, float* x) = 0;
  // Frees what was loaded before.
  virtual Result<void> load(int64_t layer) = 0;
  // One whole sequence through the loaded layer. x: [tokens, hidden], overwritten with the next layer's input.
  virtual Result<void> run(float* x, int64_t tokens) = 0;
  // Through half of it. x: what goes into the half, overwritten with what comes out; added: null, or [tokens, hidden] for what the half's module puts out, from
  // which a norm may follow before it is added to x.
  virtual Result<void> run_half(Half half, float* x, int64_t tokens, float* added) = 0;
  // The half that the linear with this path is in. Errors: invalid_argument, neither.
  virtual Result<Half> half_of(const std::string& path) const = 0;
  // Norm and head, behind the last layer; frees what was loaded before. Returns the size of the vocabulary.
  virtual Result<int64_t> load_head() = 0;
  // x: [rows, hidden], what comes out of the last layer, of any tokens; out: [rows, vocabulary].
  virtual Result<void> logits(const float* x, int64_t rows, float* out) = 0;
};

// The ranks that run one model; each has its part of the checkpoint (pass/shard.h). They call the model together, with the same batches, and all get the
// logits.
struct Team {
  host::Communicator* tensor = nullptr;  // those that cut the matrices; null: nobody else does
  host::Communicator* expert = nullptr;  // those that cut an expert's
  host::Communicator* spread = nullptr;  // those that have a layer's experts together; null: all are here
  std::vector<arch::Range> words;        // of the vocabulary, for each rank of `tensor`
  arch::Sharing sharing{arch::Ranks{}};
};

struct Loading {
  const Package& package;
  const ir::Checkpoint& checkpoint;
  host::Arena& arena;
  host::ThreadPool& pool;  // used by the model as long as it lives
  Context& context;
  Options options;
  const Team* team = nullptr;  // outlives the model; null: nobody else
};

struct Architecture {
  std::string_view name;
  std::span<const std::string_view> families;  // arch::Family names that it runs
  Result<DecoderBuilder> (*begin)(const Loading&);
};
std::span<const Architecture* const> architectures();  // the generated manifest
Result<std::unique_ptr<Model>> load(const Loading&);
// The checkpoint is settled (pass/settle.h); everything that `loading` refers to outlives the stream, and so does `loading`. Its options say who looks on;
// kernels are chosen as for a model. The arena is not used.
Result<std::unique_ptr<LayerStream>> stream(const Loading& loading);

}  // namespace qb::model

#define QB_MODEL(stem)                    \
  extern const Architecture model_##stem; \
  const Architecture model_##stem
