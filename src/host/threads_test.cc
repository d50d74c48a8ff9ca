#include "host/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace qb::host {
namespace {

TEST(ThreadPool, CallsEachIndexOnceForEachRun) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    std::vector<int> calls(static_cast<size_t>(threads), 0);  // no atomics: run() orders them
    for (int round = 0; round < 500; ++round) {
      pool.run([&](int i) { ++calls[static_cast<size_t>(i)]; });
    }
    for (int c : calls) EXPECT_EQ(c, 500);
  }
}

TEST(ThreadPool, WakesSleepersAndWaitsForSlowOnes) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than workers spin
    std::atomic<int> done{0};
    pool.run([&](int i) {
      if (i == 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      done.fetch_add(1);
    });
    EXPECT_EQ(done.load(), 3);
  }
}

TEST(ThreadPool, RangesCoverOnceAtMultiplesOfTheGrain) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 15, 16, 17, 31, 64, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
      pool.ranges(count, 16, [&](int64_t begin, int64_t end) {
        EXPECT_EQ(begin % 16, 0);
        EXPECT_TRUE(end % 16 == 0 || end == count);
        EXPECT_LT(begin, end);
        for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)].fetch_add(1);
      });
      for (auto& s : seen) EXPECT_EQ(s.load(), 1);
    }
  }
}

// A hint may name anything, at any time.
TEST(ThreadPool, WhatIsExpectedChangesNothing) {
  ThreadPool pool(3);
  const std::vector<std::byte> bytes(100'001);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 200; ++round) {
    pool.expect(std::span(bytes).first(bytes.size() * static_cast<size_t>(round) / 199));
    pool.ranges(100, 1, [&](int64_t begin, int64_t end) { sum.fetch_add(end - begin); });
    if (round % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  pool.expect({});
  pool.run([&](int) { sum.fetch_add(1); });
  EXPECT_EQ(sum.load(), 200 * 100 + 3);
}

}  // namespace
}  // namespace qb::host
