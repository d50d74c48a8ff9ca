// The decoder that all families share: embedding, layers of two halves around a residual stream, norm, head. What the halves are, an architecture's file
// decides; it says to a DecoderBuilder how a layer is made. A model has all of them made; a stream (model.h) has one at a time.
//
// A forward goes through its tokens in passes (layer_runner.h), so that a run needs little besides weights and KV cache. Source of truth: the modeling files of
// transformers 5.17.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder_config.h"
#include "model/layer_runner.h"
#include "model/loader.h"
#include "model/mixture.h"
#include "model/self_attention.h"
#include "model/sublayer.h"

namespace qb::model {

struct DecoderParts {
  DecoderConfig config;
  std::vector<layer::Rope> ropes;  // the config's, and what an architecture adds
  KvCache::Shape kv;
  float norm_plus = 0;  // as in Loader::norm, of every norm
  float embedding_scale = 1;
  float logit_softcap = 0;  // 0: none
};

class DecoderBuilder {
 public:
  // Reads the config: the document's, or an architecture's version of it. `loading` outlives the builder.
  static Result<DecoderBuilder> begin(const Loading& loading, const Json& config, const DecoderRules& rules);

  const DecoderConfig& sizes() const { return parts.config; }
  Loader& loader() { return *loader_; }
  std::string path(int64_t layer, std::string_view suffix) const;  // model.layers.0.mlp
  Result<const float*> norm(int64_t layer, std::string_view suffix);
  AttentionSpec attention(int64_t layer) const;  // by the config
  FeedForwardSpec feed_forward() const;
  // A layer with the usual norms; both halves are made by then.
  Result<DecoderLayer> layer(int64_t layer, std::unique_ptr<Sublayer> attention, std::unique_ptr<Sublayer> feed_forward);

  // What the architecture's file has decided.
  DecoderParts parts;
  std::function<Result<DecoderLayer>(DecoderBuilder&, int64_t layer)> make_layer;

  // Modules are loaded as this says from here on: into another arena. It outlives the builder.
  void load_with(const Loading& loading);

  // All layers, embedding, last norm and head: the model.
  Result<std::unique_ptr<Model>> finish();
  // Layer by layer. `loading` outlives the stream.
  Result<std::unique_ptr<LayerStream>> stream();

 private:
  const Loading* loading_ = nullptr;
  std::unique_ptr<Loader> loader_;
};

// Rows of the embedding as the first layer gets them. x: [ids, hidden]
void embed(const layer::Embedding& table, const DecoderParts& parts, std::span<const int32_t> ids, float* x);

// The part of config.json that is about the language model.
Result<const Json*> model_config(const Loading& loading);

}  // namespace qb::model
