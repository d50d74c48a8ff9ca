// One option for each of many items, so that all together cost least within a number of bytes: the multiple-choice knapsack, as mixing schemes has it.
//
// Goals: the exact answer, for thousands of items, in well under a second. Pure: numbers in, numbers out, and the same ones for the same items. Non-goal: what
// items and costs are (bridge/mixing.h). Source of truth: Pisinger, "A minimal algorithm for the multiple-choice knapsack problem" (1995): states of partial
// choices without those that others dominate, bounded by the Lagrangian relaxation. Rejected: a table over bytes, whose size is that of the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace qb::calib {

struct Option {
  uint64_t bytes = 0;
  double cost = 0;  // finite, not negative
};
using Item = std::vector<Option>;  // at least one option

struct Choice {
  std::vector<size_t> options;  // of each item the number of its option
  uint64_t bytes = 0;
  double cost = 0;
  bool exact = true;  // false: no better one was found, and there may be one
};

// The choices that no mixture of two others beats (the lower convex hull of all of them), from the smallest on, each with fewer bytes and more cost than the
// next. None without items.
std::vector<Choice> frontier(std::span<const Item> items);

// The choice of least cost of at most so many bytes; nothing where the smallest one has more.
std::optional<Choice> choose(std::span<const Item> items, uint64_t bytes);

}  // namespace qb::calib
