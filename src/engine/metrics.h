// What logits say about a model: perplexity over a text, and the distance to another model's logits. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace qb::engine {

// exp of the mean negative log-likelihood over positions 1..n-1 of each chunk of n tokens, every chunk run alone.
class Perplexity {
 public:
  // logits: [ids.size(), vocab]
  void add(std::span<const float> logits, size_t vocab, std::span<const int32_t> ids);
  double value() const;  // 0 before the first add
  int64_t count() const { return count_; }

 private:
  double nll_ = 0;
  int64_t count_ = 0;
};

// The other model's distribution is the truth. Rows of `vocab` logits each, as many of both.
struct Comparison {
  double kl = 0, max_abs = 0;  // kl: the sum over rows of KL(other || this) in nats; max_abs: the largest difference of two logits
  int64_t rows = 0, same = 0;  // same: rows whose likeliest token agrees
  void add(std::span<const float> mine, std::span<const float> other, size_t vocab);
};

double log_sum_exp(std::span<const float> row);

// Consecutive chunks of n ids; the last short one is dropped.
std::vector<std::vector<int32_t>> chunks_of(std::span<const int32_t> ids, size_t n);

}  // namespace qb::engine
