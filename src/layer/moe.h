// A mixture of experts: which experts a token goes to and with what weight, and the experts run on the tokens that chose them, so that each expert's weight is
// read once for a whole batch.
//
// What a token gets depends on nothing but the token: its experts' outputs are added in the experts' order, also where ranks have some experts each; they
// exchange what each expert gave, and not sums of their own, whose order would be another. Source of truth: the modeling files of
// transformers 5.17 (Mixtral, Qwen2-MoE, Qwen3-MoE, DeepSeek-V2, DeepSeek-V3).
#pragma once

#include <cstdint>
#include <vector>

#include "layer/feed_forward.h"

namespace qb::layer {

struct Routing {
  enum class Score : uint8_t { softmax, sigmoid };
  enum class Judge : uint8_t { best, best_two };  // a group of experts is as good as its best one, or as its two best together

  int64_t experts = 0, top = 0;
  Score score = Score::softmax;
  const float* bias = nullptr;         // [experts]: added to the scores for the choice, not for the weights
  int64_t groups = 1, top_groups = 1;  // only experts of the best groups can be chosen
  Judge judge = Judge::best;
  bool normalize = false;  // the weights of a token sum to one, before `scale`
  float scale = 1;
};

struct RouteBuffers {  // kept from one call to the next
  std::vector<float> scores, choice, groups;
  std::vector<uint8_t> marked;
};
// logits: [rows, experts]; chosen, weights: [rows, top], the experts of a row in ascending order.
void route(const Routing& routing, const float* logits, int64_t rows, int32_t* chosen, float* weights, RouteBuffers& buffers);

class Experts {
 public:
  // Of a layer's experts `here` are here, from `first` on; the others are on the other ranks of `spread`, where it is given.
  struct Place {
    int64_t first = 0, here = 0, all = 0;
    host::Communicator* spread = nullptr;
  };
  Experts() = default;
  Experts(std::vector<FeedForward> experts, int64_t hidden, const Place& place) : experts_(std::move(experts)), hidden_(hidden), place_(place) {}

  std::span<const FeedForward> here() const { return experts_; }
  int64_t first() const { return place_.first; }
  int64_t scratch_per_row(int64_t top) const;  // floats
  // x, y: [rows, hidden], not the same; chosen, weights: [rows, top] as `route` gives them.
  void run(const float* x, int64_t rows, int64_t top, const int32_t* chosen, const float* weights, float* y, float* scratch, const Tools& tools);

 private:
  void run_here(const float* x, int64_t rows, int64_t top, const float* weights, float* y, float* scratch, const Tools& tools, float* apart);

  std::vector<FeedForward> experts_;
  int64_t hidden_ = 0;
  Place place_;
  std::vector<int32_t> begins_, places_;  // of each expert in places_; places in chosen, by expert
};

}  // namespace qb::layer
