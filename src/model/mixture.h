// Feed-forward parts as halves of a layer: a dense one, and a mixture of experts with a router and, in some families, a part that every token sees.
#pragma once

#include <memory>

#include "layer/moe.h"
#include "model/loader.h"
#include "model/sublayer.h"

namespace qb::model {

// Names of a feed-forward part's linears below its path.
struct FeedForwardNames {
  const char *gate = "gate_proj", *up = "up_proj", *down = "down_proj";
};

struct FeedForwardSpec {
  int64_t hidden = 0;
  int64_t width = 0;  // 0: as the weights have it
  layer::Gate activation = layer::Gate::silu;
  FeedForwardNames names = {};
};

Result<layer::FeedForward> load_parts(Loader& loader, const std::string& path, const FeedForwardSpec& spec);
Result<std::unique_ptr<Sublayer>> load_feed_forward(Loader& loader, const std::string& path, const FeedForwardSpec& spec);

struct MixtureSpec {
  FeedForwardSpec expert;
  layer::Routing routing;
  std::string router, experts;   // paths; the number of an expert follows behind a dot
  std::string bias = {};         // of the router: a tensor beside its weight that is added for the choice
  std::string shared = {};       // path of the part that every token sees; empty: there is none
  std::string shared_gate = {};  // path of a linear whose sigmoid it is multiplied with; empty: 1
};
Result<std::unique_ptr<Sublayer>> load_mixture(Loader& loader, const MixtureSpec& spec);

}  // namespace qb::model
