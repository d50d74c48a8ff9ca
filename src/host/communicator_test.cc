#include <gtest/gtest.h>

#include "host/test_ranks.h"

namespace qb::host {
namespace {

TEST(Communicator, AddsInTheOrderOfTheRanks) {
  run_ranks(3, [](Communicator& c) {
    // 2^53 + 1 + -2^53 is 0 in this order, 1 in others.
    std::vector<double> numbers(200'000, c.rank() == 0 ? 0x1p53 : c.rank() == 1 ? 1.0 : -0x1p53);
    numbers.back() = c.rank() + 1;
    c.sum(std::span(numbers));
    EXPECT_EQ(numbers.front(), 0.0);
    EXPECT_EQ(numbers.back(), 6.0);
    std::vector<float> floats{static_cast<float>(c.rank())};
    c.sum(std::span(floats));
    EXPECT_EQ(floats[0], 3.0F);
  });
}

TEST(Communicator, GathersTextsOfAnyLength) {
  run_ranks(3, [](Communicator& c) {
    const std::vector<std::string> want{"", std::string(3'000'000, 'x'), "two"};
    EXPECT_EQ(c.gather_text(want[static_cast<size_t>(c.rank())]), want);
    std::string text = c.rank() == 0 ? std::string(2'500'000, 'y') : "other";
    c.broadcast_text(text);
    EXPECT_EQ(text, std::string(2'500'000, 'y'));
  });
}

TEST(Communicator, SplitsIntoGroups) {
  run_ranks(4, [](Communicator& c) {
    const auto part = c.split(c.rank() % 2);
    EXPECT_EQ(part->size(), 2);
    EXPECT_EQ(part->rank(), c.rank() / 2);
    std::vector<double> numbers{static_cast<double>(c.rank())};
    part->sum(std::span(numbers));
    EXPECT_EQ(numbers[0], c.rank() % 2 == 0 ? 2.0 : 4.0);
  });
}

}  // namespace
}  // namespace qb::host
