#include "oracle/profile.h"

#include <gtest/gtest.h>

#include "oracle/oracle.h"

namespace qb::oracle {
namespace {

using kernel::Kernel;
using kernel::Problem;

const host::Cpu zen4{.name = "zen4", .what = "", .features = host::Feature::avx2 | host::Feature::avx512 | host::Feature::avx512_bf16, .cores = 2};

Problem bf16(int64_t m, int64_t n = 4096, int64_t k = 4096) {
  return {.m = m, .n = n, .k = k, .scheme = *ir::parse_scheme("bf16")};
}

const Kernel& named(std::string_view name) {
  for (const Kernel* k : kernel::kernels())
    if (k->name == name) return *k;
  ADD_FAILURE() << "no " << name;
  return *kernel::kernels().front();
}

Profile profile(std::vector<Timing> timings) {
  return {Timings{.features = host::to_string(zen4.features), .cores = 2, .threads = 2, .all = std::move(timings)}, kernel::kernels(), zen4};
}

TEST(Profile, CostsWhatWasMeasuredAndLiesBetweenElsewhere) {
  const Kernel& k = named("linear_bf16_f32_avx512");
  const double one = k.cost_ns(bf16(1), zen4), many = k.cost_ns(bf16(64), zen4);
  const Profile p = profile({{std::string(k.name), "bf16", 1, 4096, 4096, 3 * one}, {std::string(k.name), "bf16", 64, 4096, 4096, 2 * many}});
  EXPECT_NEAR(p.cost_ns(k, bf16(1), zen4), 3 * one, 1e-3 * one);
  EXPECT_NEAR(p.cost_ns(k, bf16(64), zen4), 2 * many, 1e-3 * many);
  const double between = p.cost_ns(k, bf16(8), zen4) / k.cost_ns(bf16(8), zen4);
  EXPECT_GT(between, 2);
  EXPECT_LT(between, 3);
  // A kernel that was not measured has the ratio of those that were.
  const Kernel& other = named("linear_bf16_f32_avx2");
  EXPECT_NEAR(p.cost_ns(other, bf16(64), zen4), 2 * other.cost_ns(bf16(64), zen4), 1e-3 * other.cost_ns(bf16(64), zen4));
}

TEST(Profile, DecidesWhichKernelRuns) {
  const Kernel &usual = named("linear_bf16_bf16_avx512bf16"), &other = named("linear_bf16_f32_avx512");
  const auto winner = [](const Policy& policy) { return choose(bf16(1), zen4, kernel::kernels(), policy)->winner; };
  EXPECT_EQ(winner({}), &usual);
  const auto measured =
      std::make_shared<const Profile>(profile({{std::string(usual.name), "bf16", 1, 2048, 2048, 9e6}, {std::string(other.name), "bf16", 1, 2048, 2048, 1e5}}));
  EXPECT_EQ(winner({.profile = measured}), &other);
  EXPECT_EQ(winner({.prefer = {std::string(usual.name)}, .profile = measured}), &usual);  // who asks has the last word
  EXPECT_TRUE(measured->fits(zen4));
  EXPECT_FALSE(measured->fits({.features = zen4.features, .cores = 3}));
}

TEST(Profile, ComesBackFromItsText) {
  const Timings t{.features = "avx2", .cores = 4, .threads = 3, .all = {{"linear_ref", "nvfp4", 1, 2, 16, 1234}}};
  const Result<Timings> r = read_timings(to_json_text(t));
  ASSERT_TRUE(r.ok()) << r.error().what;
  EXPECT_EQ(to_json_text(*r), to_json_text(t));
  EXPECT_EQ(r->all[0].ns, 1234);
}

TEST(Profile, TextThatIsNoneIsAnErrorThatSaysWhatIsWrong) {
  const auto error = [](std::string_view text) {
    const Result<Timings> r = read_timings(text);
    return r ? std::string() : r.error().what;
  };
  const std::string head = R"({"schema": "quantbridge.profile/1", "features": "avx2", "cores": 2, "threads": 2, "timings": )";
  EXPECT_EQ(error(head + "[]}"), "");
  for (const std::string& text : {std::string("{"), std::string("[]"), std::string(R"({"schema": "x"})"), head + "{}}",
                                  head + R"([{"kernel": "k", "scheme": "bf16", "m": 0, "n": 1, "k": 1, "ns": 1}]})",
                                  head + R"([{"kernel": "k", "scheme": "bf16", "m": 1, "n": 1, "k": 1, "ns": "fast"}]})", head + "[7]}"})
    EXPECT_NE(error(text).find("no profile of kernels"), std::string::npos) << text;
  // Names of other versions are left out.
  const Result<Timings> r = read_timings(head + R"([{"kernel": "k", "scheme": "bf16", "m": 1, "n": 1, "k": 1, "ns": 1}]})");
  ASSERT_TRUE(r.ok());
  const Kernel& k = named("linear_bf16_f32_avx2");
  EXPECT_EQ(Profile(*r, kernel::kernels(), zen4).cost_ns(k, bf16(1), zen4), k.cost_ns(bf16(1), zen4));
}

}  // namespace
}  // namespace qb::oracle
