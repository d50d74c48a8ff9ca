#include "layer/moe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace qb::layer {
namespace {

void softmax(float* x, int64_t n) {
  const float most = *std::max_element(x, x + n);
  float total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i] = std::exp(x[i] - most);
  for (int64_t i = 0; i < n; ++i) x[i] /= total;
}

// Marks the `top` largest; of equal ones the first.
void mark_largest(const float* x, int64_t n, int64_t top, std::vector<uint8_t>& marked) {
  marked.assign(static_cast<size_t>(n), 0);
  for (int64_t t = 0; t < top; ++t) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; ++i)
      if (marked[static_cast<size_t>(i)] == 0 && (best < 0 || x[i] > x[best])) best = i;
    marked[static_cast<size_t>(best)] = 1;
  }
}

float judged(const float* x, int64_t n, Routing::Judge judge) {
  float best = x[0], second = -__builtin_inff();
  for (int64_t i = 1; i < n; ++i) {
    second = std::max(second, std::min(best, x[i]));
    best = std::max(best, x[i]);
  }
  return judge == Routing::Judge::best ? best : best + second;
}

}  // namespace

void route(const Routing& r, const float* logits, int64_t rows, int32_t* chosen, float* weights, RouteBuffers& buffers) {
  const int64_t in_group = r.experts / r.groups;
  auto& [scores, choice, groups, marked] = buffers;
  scores.resize(static_cast<size_t>(r.experts));
  groups.resize(static_cast<size_t>(r.groups));
  for (int64_t row = 0; row < rows; ++row, logits += r.experts, chosen += r.top, weights += r.top) {
    std::copy_n(logits, r.experts, scores.begin());
    if (r.score == Routing::Score::softmax) {
      softmax(scores.data(), r.experts);
    } else {
      for (float& s : scores) s = 1.0F / (1.0F + std::exp(-s));
    }
    choice = scores;
    for (int64_t i = 0; r.bias != nullptr && i < r.experts; ++i) choice[static_cast<size_t>(i)] += r.bias[i];
    if (r.groups > 1) {
      for (int64_t g = 0; g < r.groups; ++g) groups[static_cast<size_t>(g)] = judged(choice.data() + g * in_group, in_group, r.judge);
      mark_largest(groups.data(), r.groups, r.top_groups, marked);
      for (int64_t i = 0; i < r.experts; ++i)
        if (marked[static_cast<size_t>(i / in_group)] == 0) choice[static_cast<size_t>(i)] = -__builtin_inff();
    }
    mark_largest(choice.data(), r.experts, r.top, marked);
    float total = 0;
    for (int64_t i = 0, at = 0; i < r.experts; ++i) {
      if (marked[static_cast<size_t>(i)] == 0) continue;
      chosen[at] = static_cast<int32_t>(i);
      weights[at] = scores[static_cast<size_t>(i)];
      total += weights[at++];
    }
    const float factor = r.normalize ? r.scale / (total + 1e-20F) : r.scale;
    for (int64_t t = 0; t < r.top; ++t) weights[t] *= factor;
  }
}

int64_t Experts::scratch_per_row(int64_t top) const {
  int64_t most = 0;
  for (const FeedForward& e : experts_) most = std::max(most, e.scratch_per_row());
  return 2 * hidden_ + most + (place_.spread == nullptr ? 0 : top * hidden_);
}

void Experts::run(const float* x, int64_t rows, int64_t top, const int32_t* chosen, const float* weights, float* y, float* scratch, const Tools& t) {
  const int64_t count = rows * top;
  begins_.assign(static_cast<size_t>(place_.all) + 1, 0);
  for (int64_t i = 0; i < count; ++i) ++begins_[static_cast<size_t>(chosen[i]) + 1];
  for (size_t e = 0; e + 1 < begins_.size(); ++e) begins_[e + 1] += begins_[e];
  places_.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) places_[static_cast<size_t>(begins_[static_cast<size_t>(chosen[i])]++)] = static_cast<int32_t>(i);
  std::fill_n(y, rows * hidden_, 0.0F);
  if (place_.spread == nullptr) return run_here(x, rows, top, weights, y, scratch, t, nullptr);
  // What each expert gave to each token that chose it, and 0 from the ranks that do not have it.
  float* const apart = scratch + rows * (scratch_per_row(top) - top * hidden_);
  std::fill_n(apart, count * hidden_, 0.0F);
  run_here(x, rows, top, weights, y, scratch, t, apart);
  place_.spread->sum(std::span(apart, static_cast<size_t>(count * hidden_)));
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < hidden_; ++d) y[i / top * hidden_ + d] += weights[i] * apart[i * hidden_ + d];
}

// Adds what the experts that are here give, by weight; or leaves it in `apart` [rows, top, hidden].
void Experts::run_here(const float* x, int64_t rows, int64_t top, const float* weights, float* y, float* scratch, const Tools& t, float* apart) {
  float* const in = scratch;
  for (size_t here = 0; here < experts_.size(); ++here) {
    const auto e = here + static_cast<size_t>(place_.first);
    const int32_t first = e == 0 ? 0 : begins_[e - 1];  // each begin has moved to the next expert's
    const int64_t mine = begins_[e] - first;
    if (mine == 0 && !t.every_expert) continue;
    const int32_t* const places = places_.data() + first;
    const int64_t seen = t.every_expert ? rows : mine;
    float* const out = in + seen * hidden_;
    if (!t.every_expert)
      for (int64_t i = 0; i < mine; ++i) std::memcpy(in + i * hidden_, x + places[i] / top * hidden_, static_cast<size_t>(hidden_) * sizeof(float));
    experts_[here].run(t.every_expert ? x : in, seen, out, out + seen * hidden_, t);
    for (int64_t i = 0; i < mine; ++i) {
      const int64_t row = places[i] / top;
      const float* const from = out + (t.every_expert ? row : i) * hidden_;
      if (apart != nullptr) {
        std::copy_n(from, hidden_, apart + places[i] * hidden_);
        continue;
      }
      float* const to = y + row * hidden_;
      const float weight = weights[places[i]];
      for (int64_t d = 0; d < hidden_; ++d) to[d] += weight * from[d];
    }
  }
}

}  // namespace qb::layer
