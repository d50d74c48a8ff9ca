// DeepSeek's latent attention as a half of a layer: keys and values of all heads are made from one narrow vector of a token, and one rotated key is shared by
// the heads.
//
// The plain formulation: kv_b is run for every token and the cache holds full keys and values. Non-goals: a cache of the narrow vectors, with kv_b absorbed
// into the queries and the output.
#pragma once

#include <memory>

#include "model/loader.h"
#include "model/sublayer.h"

namespace qb::model {

struct LatentSpec {
  int64_t hidden = 0, heads = 0;
  int64_t q_rank = 0;                              // 0: queries come from the residual stream at once
  int64_t kv_rank = 0, nope = 0, rope = 0, v = 0;  // v at most nope + rope
  bool neighbours = true;                          // pairs that turn together are neighbours, not halves
  float scale = 0;
  float eps = 1e-6F;
  int64_t key() const { return nope + rope; }
};

Result<std::unique_ptr<Sublayer>> load_latent_attention(Loader& loader, const std::string& path, const LatentSpec& spec);

}  // namespace qb::model
