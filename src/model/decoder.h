// The decoder that all families share: embedding, layers of two halves around a residual stream, norm, head. What the halves are, an architecture's file
// decides; it builds the layers with a DecoderBuilder and hands them over.
//
// Everything between layers is float32. A forward goes through its tokens in passes whose buffers stay below 32 MiB, so that a run needs little besides weights
// and KV cache. Source of truth: the modeling files of transformers 5.17.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/decoder_config.h"
#include "model/loader.h"
#include "model/mixture.h"
#include "model/self_attention.h"
#include "model/sublayer.h"

namespace qb::model {

struct DecoderLayer {
  const float *attention_norm = nullptr, *feed_forward_norm = nullptr;          // of each half's input
  const float *attention_out_norm = nullptr, *feed_forward_out_norm = nullptr;  // of what it adds; null: none
  std::unique_ptr<Sublayer> attention, feed_forward;
};

struct DecoderParts {
  DecoderConfig config;
  std::vector<layer::Rope> ropes;  // the config's, and what an architecture adds
  KvCache::Shape kv;
  float norm_plus = 0;  // as in Loader::norm, of every norm
  float embedding_scale = 1;
  float logit_softcap = 0;  // 0: none
  std::vector<DecoderLayer> layers;
};

class DecoderBuilder {
 public:
  // Reads the config. `config` outlives the builder: it is the document's, or an architecture's version of it.
  static Result<DecoderBuilder> begin(const Loading& loading, const Json& config, const DecoderRules& rules);

  const Json& config() const { return *config_; }
  const DecoderConfig& sizes() const { return parts.config; }
  Loader& loader() { return *loader_; }
  std::string path(int64_t layer, std::string_view suffix) const;  // model.layers.0.mlp
  Result<const float*> norm(int64_t layer, std::string_view suffix);
  AttentionSpec attention(int64_t layer) const;  // by the config
  FeedForwardSpec feed_forward() const;
  // Appends a layer with the usual norms; both halves are made by then.
  Result<void> add(int64_t layer, std::unique_ptr<Sublayer> attention, std::unique_ptr<Sublayer> feed_forward);

  // Embedding, last norm and head, and the model.
  Result<std::unique_ptr<Model>> finish();

  DecoderParts parts;

 private:
  const Loading* loading_ = nullptr;
  const Json* config_ = nullptr;
  std::unique_ptr<Loader> loader_;
};

// The part of config.json that is about the language model.
Result<const Json*> model_config(const Loading& loading);

}  // namespace qb::model
