#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

namespace qb::engine {
namespace {

// The lowest id of the largest logit that is not NaN.
size_t best_of(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[best] || (std::isnan(logits[best]) && !std::isnan(logits[i]))) best = i;
  return best;
}

constexpr double never = -60;  // exponent below which a token is not drawn

}  // namespace

double Sampler::uniform() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int32_t Sampler::next(std::span<const float> logits) {
  const size_t best = best_of(logits);
  const double most = static_cast<double>(logits[best]);
  if (!(sampling_.temperature > 0) || !std::isfinite(most)) return static_cast<int32_t>(best);
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const double exponent = (static_cast<double>(logits[i]) - most) / sampling_.temperature;
    if (exponent >= never) candidates_.push_back({static_cast<int32_t>(i), std::exp(exponent)});
  }
  const auto better = [](const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; };
  const bool some = sampling_.top_k > 0 && static_cast<size_t>(sampling_.top_k) < candidates_.size();
  if (some) {
    const auto end = candidates_.begin() + sampling_.top_k;
    std::nth_element(candidates_.begin(), end, candidates_.end(), better);
    candidates_.erase(end, candidates_.end());
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  if (sampling_.top_p < 1) {
    double sum = 0;
    size_t kept = 0;
    do sum += candidates_[kept++].weight;
    while (kept < candidates_.size() && sum < sampling_.top_p * total);
    candidates_.resize(kept, {});
    total = sum;
  }
  double left = uniform() * total;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return candidates_.back().id;  // rounding alone leads here
}

}  // namespace qb::engine
