// How far many models' distributions are from one model's, row by row of logits: KL(truth || other), in nats.
//
// With p the truth's probabilities and d the differences of logits, KL = log sum p exp(d - c), c = sum p d: no difference of large numbers, so that divergences
// of 1e-6 are right to some digits although everything is float32. The same bits for any number of threads.
#pragma once

#include <span>
#include <vector>

#include "host/threads.h"
#include "num/isa.h"

namespace qb::engine {

class Divergence {
 public:
  // The pool outlives it.
  Divergence(host::ThreadPool& pool, Isa isa) : pool_(pool), isa_(isa) {}
  // Rows of `vocab` logits of the truth, which stay where they are until the next call.
  void begin(std::span<const float> logits, size_t vocab);
  // The sum over these rows, as many logits of another model.
  double of(std::span<const float> logits);

 private:
  host::ThreadPool& pool_;
  Isa isa_;
  size_t vocab_ = 1;
  std::span<const float> truth_;
  std::vector<float> probabilities_;
  std::vector<double> rows_;
};

}  // namespace qb::engine
