#include "calib/choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace qb::calib {
namespace {

std::vector<Item> random_items(std::mt19937& rng, size_t items, size_t most_options, uint64_t most_bytes, int most_cost) {
  std::vector<Item> out;
  for (size_t i = 0; i < items; ++i) {
    Item item;
    const size_t options = 1 + rng() % most_options;
    for (size_t o = 0; o < options; ++o) item.push_back({1 + rng() % most_bytes, static_cast<double>(rng() % static_cast<unsigned>(most_cost)) / 8});
    out.push_back(std::move(item));
  }
  return out;
}

void expect_consistent(const std::vector<Item>& items, const Choice& c) {
  ASSERT_EQ(c.options.size(), items.size());
  uint64_t bytes = 0;
  double cost = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_LT(c.options[i], items[i].size());
    bytes += items[i][c.options[i]].bytes;
    cost += items[i][c.options[i]].cost;
  }
  EXPECT_EQ(c.bytes, bytes);
  EXPECT_DOUBLE_EQ(c.cost, cost);
}

// The least cost of each number of bytes, by all choices there are. Costs are multiples of an eighth: sums are exact.
double by_force(const std::vector<Item>& items, uint64_t most, size_t from = 0) {
  if (from == items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const Option& o : items[from])
    if (o.bytes <= most) best = std::min(best, o.cost + by_force(items, most - o.bytes, from + 1));
  return best;
}

// The same by a table over bytes, for more items than can be tried.
std::vector<double> by_table(const std::vector<Item>& items, uint64_t most) {
  constexpr double never = std::numeric_limits<double>::infinity();
  std::vector<double> least(most + 1, 0);
  for (const Item& item : items) {
    std::vector<double> next(most + 1, never);
    for (uint64_t b = 0; b <= most; ++b)
      for (const Option& o : item)
        if (o.bytes <= b) next[b] = std::min(next[b], least[b - o.bytes] + o.cost);
    least = std::move(next);
  }
  return least;
}

TEST(Choice, IsTheBestOfAll) {
  std::mt19937 rng(1);
  for (int round = 0; round < 2000; ++round) {
    // Few sizes and costs: many choices are equal.
    const std::vector<Item> items = random_items(rng, 1 + rng() % 6, 4, round % 2 == 0 ? 6 : 1000, round % 3 == 0 ? 8 : 4000);
    const uint64_t most = rng() % (items.size() * (round % 2 == 0 ? 6 : 1000) + 2);
    const double best = by_force(items, most);
    const std::optional<Choice> found = choose(items, most);
    ASSERT_EQ(found.has_value(), best < std::numeric_limits<double>::infinity()) << round;
    if (!found) continue;
    expect_consistent(items, *found);
    EXPECT_LE(found->bytes, most);
    EXPECT_EQ(found->cost, best) << round;
    EXPECT_TRUE(found->exact);
  }
}

TEST(Choice, IsTheBestOfMany) {
  std::mt19937 rng(2);
  for (int round = 0; round < 10; ++round) {
    const std::vector<Item> items = random_items(rng, 60, 6, 40, 1000);
    const std::vector<double> least = by_table(items, 2400);
    for (uint64_t most = 0; most <= 2400; most += 37) {
      const std::optional<Choice> found = choose(items, most);
      ASSERT_EQ(found.has_value(), least[most] < std::numeric_limits<double>::infinity());
      if (!found) continue;
      expect_consistent(items, *found);
      EXPECT_LE(found->bytes, most);
      EXPECT_NEAR(found->cost, least[most], 1e-9);
      EXPECT_TRUE(found->exact);
    }
  }
}

TEST(Choice, OfALargeModelIsExact) {
  // 126 layers of four groups and six options each, of sizes as schemes have them.
  std::mt19937 rng(3);
  std::uniform_real_distribution<double> part(0.5, 2);
  std::vector<Item> items;
  const double bits[] = {4.125, 4.25, 4.5, 8.0078125, 8.03125, 16}, errors[] = {1.4, 1.2, 0.9, 0.02, 0.004, 0};
  for (int layer = 0; layer < 126; ++layer)
    for (const uint64_t weights : {uint64_t{301989888}, uint64_t{268435456}, uint64_t{1744830464}, uint64_t{872415232}}) {
      Item item;
      const double sensitivity = 1e-3 * part(rng) * part(rng);
      for (size_t o = 0; o < std::size(bits); ++o)
        item.push_back({static_cast<uint64_t>(static_cast<double>(weights) * bits[o] / 8), sensitivity * errors[o] * part(rng)});
      items.push_back(std::move(item));
    }
  const std::vector<Choice> hull = frontier(items);
  const uint64_t most = hull.front().bytes + (hull.back().bytes - hull.front().bytes) / 5;
  const std::optional<Choice> found = choose(items, most);
  ASSERT_TRUE(found);
  expect_consistent(items, *found);
  EXPECT_LE(found->bytes, most);
  EXPECT_TRUE(found->exact);
  // Between the two neighbours on the hull.
  const auto after = std::find_if(hull.begin(), hull.end(), [&](const Choice& c) { return c.bytes > most; });
  ASSERT_NE(after, hull.begin());
  ASSERT_NE(after, hull.end());
  EXPECT_LE(found->cost, std::prev(after)->cost);
  EXPECT_GE(found->cost, after->cost);
}

TEST(Choice, FrontierIsConvexAndNoChoiceIsBelow) {
  std::mt19937 rng(4);
  for (int round = 0; round < 200; ++round) {
    const std::vector<Item> items = random_items(rng, 1 + rng() % 8, 5, 50, 4000);
    const std::vector<Choice> hull = frontier(items);
    ASSERT_FALSE(hull.empty());
    for (const Choice& c : hull) {
      expect_consistent(items, c);
      const std::optional<Choice> best = choose(items, c.bytes);
      ASSERT_TRUE(best);
      EXPECT_NEAR(best->cost, c.cost, 1e-9);  // a point of the hull is the best of its size
    }
    const auto rate = [](const Choice& a, const Choice& b) { return (a.cost - b.cost) / static_cast<double>(b.bytes - a.bytes); };
    for (size_t i = 1; i < hull.size(); ++i) {
      EXPECT_GT(hull[i].bytes, hull[i - 1].bytes);
      EXPECT_LT(hull[i].cost, hull[i - 1].cost);
      if (i == 1) continue;
      EXPECT_LE(rate(hull[i - 1], hull[i]), rate(hull[i - 2], hull[i - 1]) * (1 + 1e-9));
    }
    EXPECT_FALSE(choose(items, hull.front().bytes - 1));
  }
}

TEST(Choice, OfNothing) {
  EXPECT_TRUE(frontier({}).empty());
  const std::optional<Choice> none = choose({}, 0);
  ASSERT_TRUE(none);
  EXPECT_EQ(none->bytes, 0u);
}

}  // namespace
}  // namespace qb::calib
