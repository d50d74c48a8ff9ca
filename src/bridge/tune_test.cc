#include "bridge/tune.h"

#include <gtest/gtest.h>

namespace qb::bench {
namespace {

TEST(Tune, MeasuresEveryKernelThatMayBeTheFastestAndNoOther) {
  const host::Cpu cpu = host::this_cpu();
  const auto memory = WeightMemory::make(size_t{8} << 20);
  ASSERT_TRUE(memory.ok());
  host::ThreadPool pool(2);
  const kernel::Problem p{.m = 2, .n = 64, .k = 256, .scheme = *ir::parse_scheme("nvfp4")};
  size_t steps = 0;
  const Result<Tuning> r = tune(cpu, *memory, pool, {.problems = {p}, .repeats = 1, .progress = [&](size_t, size_t) { ++steps; }});
  ASSERT_TRUE(r.ok()) << r.error().what;
  ASSERT_EQ(r->races.size(), 1);
  EXPECT_EQ(steps, 2);
  const Race& race = r->races[0];
  EXPECT_EQ(race.runners.front().kernel, oracle::choose(p, cpu, kernel::kernels(), {})->winner);
  EXPECT_GE(race.regret(), 0);
  EXPECT_EQ(r->timings.all.size(), race.runners.size());
  for (const Race::Runner& each : race.runners) {
    EXPECT_GT(each.ns.median, 0);
    EXPECT_NE(each.kernel->name, "linear_ref");
  }
  const Result<oracle::Timings> back = oracle::read_timings(oracle::to_json_text(r->timings));
  ASSERT_TRUE(back.ok());
  EXPECT_TRUE(oracle::Profile(*back, kernel::kernels(), cpu).fits(cpu));
}

TEST(Tune, StopsWhenItIsToldTo) {
  const auto memory = WeightMemory::make(size_t{8} << 20);
  ASSERT_TRUE(memory.ok());
  host::ThreadPool pool(1);
  const Result<Tuning> r = tune(host::this_cpu(), *memory, pool, {.stop = [] { return true; }});
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, Errc::cancelled);
}

}  // namespace
}  // namespace qb::bench
