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

}  // namespace
}  // namespace qb::host
