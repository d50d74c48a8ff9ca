// Picks the next token from logits, per sequence.
//
// Random numbers: SplitMix64 (Steele, Lea, Flood 2014), its state starting at the seed; one draw for each sampled token, its upper 53 bits as a number in [0,
// 1). Order as in transformers: temperature, the top_k best, then the fewest of them whose probabilities reach top_p. Tokens whose probability is below e^-60
// of the best one's are never drawn.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qb::engine {

struct Sampling {
  double temperature = 0;  // 0: greedy (the lowest id among equals)
  double top_p = 1;
  int32_t top_k = 0;  // 0: all
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling) : sampling_(sampling), state_(sampling.seed) {}
  // NaN logits never win (where all are NaN, token 0 does). Precondition: there are logits. The same seed and logits give the same tokens.
  int32_t next(std::span<const float> logits);

 private:
  struct Candidate {
    int32_t id;
    double weight;  // probability relative to the best one's
  };
  double uniform();
  Sampling sampling_;
  uint64_t state_;
  std::vector<Candidate> candidates_;
};

}  // namespace qb::engine
