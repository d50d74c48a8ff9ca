#include "engine/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qb::engine {
namespace {

size_t argmax(std::span<const float> row) {
  size_t best = 0;
  for (size_t i = 1; i < row.size(); ++i)
    if (row[i] > row[best]) best = i;
  return best;
}

}  // namespace

double log_sum_exp(std::span<const float> row) {
  float top = -std::numeric_limits<float>::infinity();
  for (float x : row) top = std::max(top, x);
  double sum = 0;
  for (float x : row) sum += std::exp(static_cast<double>(x) - static_cast<double>(top));
  return static_cast<double>(top) + std::log(sum);
}

void Perplexity::add(std::span<const float> logits, size_t vocab, std::span<const int32_t> ids) {
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const std::span<const float> row = logits.subspan(t * vocab, vocab);
    nll_ += log_sum_exp(row) - static_cast<double>(row[static_cast<size_t>(ids[t + 1])]);
    ++count_;
  }
}

double Perplexity::value() const {
  return count_ > 0 ? std::exp(nll_ / static_cast<double>(count_)) : 0;
}

void Comparison::add(std::span<const float> mine, std::span<const float> other, size_t vocab) {
  for (size_t at = 0; at < mine.size(); at += vocab, ++rows) {
    const std::span<const float> p = other.subspan(at, vocab), q = mine.subspan(at, vocab);
    const double lp = log_sum_exp(p), lq = log_sum_exp(q);
    for (size_t i = 0; i < vocab; ++i) {
      const double log_p = static_cast<double>(p[i]) - lp;
      kl += std::exp(log_p) * (log_p - (static_cast<double>(q[i]) - lq));
      max_abs = std::max(max_abs, std::fabs(static_cast<double>(p[i]) - static_cast<double>(q[i])));
    }
    same += argmax(p) == argmax(q) ? 1 : 0;
  }
}

std::vector<std::vector<int32_t>> chunks_of(std::span<const int32_t> ids, size_t n) {
  std::vector<std::vector<int32_t>> chunks;
  for (size_t at = 0; at + n <= ids.size(); at += n)
    chunks.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(at), ids.begin() + static_cast<std::ptrdiff_t>(at + n));
  return chunks;
}

}  // namespace qb::engine
