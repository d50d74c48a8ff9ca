// Picks the next token from logits, per sequence.
#pragma once

#include <cstdint>
#include <span>

namespace qb::engine {

struct Sampling {
  double temperature = 0;  // 0: greedy (the lowest id among equals)
  double top_p = 1;
  int32_t top_k = 0;       // 0: all
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling) : sampling_(sampling), state_(sampling.seed) {}
  // NaN logits never win. Deterministic for a seed, whatever the machine.
  int32_t next(std::span<const float> logits);

 private:
  double uniform();
  Sampling sampling_;
  uint64_t state_;
};

}  // namespace qb::engine
