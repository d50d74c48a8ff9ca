#include "calib/choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace qb::calib {
namespace {

// From one option of an item to the next one on the item's hull.
struct Step {
  size_t item = 0, to = 0;
  uint64_t bytes = 0;  // more
  double gain = 0;     // less cost
  double rate() const { return gain / static_cast<double>(bytes); }
};

// Numbers of an item's options on its lower hull, by size.
std::vector<size_t> hull_of(const Item& item) {
  std::vector<size_t> order(item.size()), hull;
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return item[a].bytes != item[b].bytes ? item[a].bytes < item[b].bytes : item[a].cost < item[b].cost; });
  const auto rate = [&](size_t a, size_t b) { return (item[a].cost - item[b].cost) / static_cast<double>(item[b].bytes - item[a].bytes); };
  for (const size_t o : order) {
    if (!hull.empty() && item[o].cost >= item[hull.back()].cost) continue;
    while (hull.size() >= 2 && rate(hull[hull.size() - 2], hull.back()) <= rate(hull.back(), o)) hull.pop_back();
    hull.push_back(o);
  }
  return hull;
}

struct Relaxed {
  Choice smallest;
  std::vector<Step> steps;  // what gains most for each byte first; those of one item in their order
};

Relaxed relax(std::span<const Item> items) {
  Relaxed out;
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    const std::vector<size_t> hull = hull_of(item);
    out.smallest.options.push_back(hull.front());
    out.smallest.bytes += item[hull.front()].bytes;
    out.smallest.cost += item[hull.front()].cost;
    for (size_t h = 1; h < hull.size(); ++h) {
      const Option &from = item[hull[h - 1]], &to = item[hull[h]];
      out.steps.push_back({i, hull[h], to.bytes - from.bytes, from.cost - to.cost});
    }
  }
  std::stable_sort(out.steps.begin(), out.steps.end(), [](const Step& a, const Step& b) { return a.rate() > b.rate(); });
  return out;
}

void take(Choice& choice, const Step& step) {
  choice.options[step.item] = step.to;
  choice.bytes += step.bytes;
  choice.cost -= step.gain;
}

double cost_of(std::span<const Item> items, const std::vector<size_t>& options) {
  double sum = 0;
  for (size_t i = 0; i < items.size(); ++i) sum += items[i][options[i]].cost;
  return sum;
}

// A choice for the items so far.
struct State {
  uint64_t bytes = 0;
  double cost = 0;
  uint32_t before = 0, option = 0;  // of the states for one item less
};

// All choices for the first items that may become better than one that is known.
class Search {
 public:
  // `rate`: the multiplier of the relaxation; any gives true bounds, the one of the step that does not fit the best.
  Search(std::span<const Item> items, uint64_t most, const Choice& known, double rate)
      : items_(items), most_(most), known_(known), rate_(rate), least_bytes_(items.size() + 1), least_sum_(items.size() + 1), least_of_(items.size()) {
    for (size_t i = items.size(); i-- > 0;) {
      uint64_t bytes = std::numeric_limits<uint64_t>::max();
      double sum = std::numeric_limits<double>::infinity();
      for (const Option& o : items[i]) {
        bytes = std::min(bytes, o.bytes);
        sum = std::min(sum, weighed(o.bytes, o.cost));
      }
      least_of_[i] = sum;
      least_bytes_[i] = least_bytes_[i + 1] + bytes;
      least_sum_[i] = least_sum_[i + 1] + sum;
    }
  }

  Choice run() {
    Choice out = known_;
    // Sums in another order are off by some units in the last place: what promises no more than that is no better.
    const double better = known_.cost - 1e-12 * std::fabs(weighed(most_, known_.cost));
    const double base = least_sum_[0] - weighed(most_, 0);
    std::vector<std::vector<State>> levels{{State{}}};
    const size_t widest = std::clamp<size_t>((size_t{1} << 24) / std::max<size_t>(items_.size(), 1), 256, size_t{1} << 17);
    for (size_t i = 0; i < items_.size(); ++i) {
      std::vector<State> next;
      for (size_t s = 0; s < levels.back().size(); ++s) {
        const State& from = levels.back()[s];
        for (size_t o = 0; o < items_[i].size(); ++o) {
          const Option& option = items_[i][o];
          if (base + weighed(option.bytes, option.cost) - least_of_[i] >= better) continue;  // in no better choice at all
          const State to{from.bytes + option.bytes, from.cost + option.cost, static_cast<uint32_t>(s), static_cast<uint32_t>(o)};
          if (to.bytes + least_bytes_[i + 1] <= most_ && bound(to, i + 1) < better) next.push_back(to);
        }
      }
      keep_undominated(next);
      if (next.size() > widest) {
        std::nth_element(next.begin(), next.begin() + static_cast<std::ptrdiff_t>(widest), next.end(),
                         [&](const State& a, const State& b) { return weighed(a.bytes, a.cost) < weighed(b.bytes, b.cost); });
        next.resize(widest);
        out.exact = false;
      }
      levels.push_back(std::move(next));
      if (levels.back().empty()) return out;
    }
    const auto best = std::min_element(levels.back().begin(), levels.back().end(), [](const State& a, const State& b) { return a.cost < b.cost; });
    if (best->cost >= known_.cost) return out;  // the bound of one that is smaller than it may be is below its cost
    out.bytes = best->bytes;
    State at = *best;
    for (size_t i = items_.size(); i-- > 0;) {
      out.options[i] = at.option;
      at = levels[i][at.before];
    }
    out.cost = cost_of(items_, out.options);
    return out;
  }

 private:
  double weighed(uint64_t bytes, double cost) const { return cost + rate_ * static_cast<double>(bytes); }
  // What the cost of any choice that begins like this is at least.
  double bound(const State& s, size_t items) const { return weighed(s.bytes, s.cost) + least_sum_[items] - weighed(most_, 0); }

  static void keep_undominated(std::vector<State>& states) {
    std::sort(states.begin(), states.end(), [](const State& a, const State& b) { return a.bytes != b.bytes ? a.bytes < b.bytes : a.cost < b.cost; });
    size_t kept = 0;
    for (const State& s : states)
      if (kept == 0 || s.cost < states[kept - 1].cost) states[kept++] = s;
    states.resize(kept);
  }

  std::span<const Item> items_;
  uint64_t most_;
  const Choice& known_;
  double rate_;
  std::vector<uint64_t> least_bytes_;         // of the items from this one on
  std::vector<double> least_sum_, least_of_;  // of cost and weighed bytes: of those, and of each item
};

}  // namespace

std::vector<Choice> frontier(std::span<const Item> items) {
  if (items.empty()) return {};
  const Relaxed relaxed = relax(items);
  std::vector<Choice> out{relaxed.smallest};
  for (const Step& step : relaxed.steps) {
    Choice next = out.back();
    take(next, step);
    next.cost = cost_of(items, next.options);
    out.push_back(std::move(next));
  }
  return out;
}

std::optional<Choice> choose(std::span<const Item> items, uint64_t bytes) {
  const Relaxed relaxed = relax(items);
  Choice known = relaxed.smallest;
  if (known.bytes > bytes) return std::nullopt;
  // Steps as long as they fit, and behind the first that does not those of other items.
  std::vector<bool> stuck(items.size());
  std::optional<double> rate;
  for (const Step& step : relaxed.steps) {
    if (stuck[step.item]) continue;
    if (step.bytes <= bytes - known.bytes) {
      take(known, step);
    } else {
      stuck[step.item] = true;
      if (!rate) rate = step.rate();
    }
  }
  known.cost = cost_of(items, known.options);
  if (!rate) return known;  // each item has its best option
  return Search(items, bytes, known, *rate).run();
}

}  // namespace qb::calib
