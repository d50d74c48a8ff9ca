#include "host/host.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "host/proc.h"

namespace qb::host {
namespace {

bool matches(std::string_view pattern, std::string_view text) {
  auto r = compile_regex(pattern);
  EXPECT_TRUE(r.ok()) << pattern;
  return r.ok() && (*r)->match_prefix(text);
}

TEST(Isa, TheVariableCapsAndNeverRaises) {
  const char* before = std::getenv("QUANTBRIDGE_ISA");
  const std::string saved = before == nullptr ? "" : before;
  ::unsetenv("QUANTBRIDGE_ISA");
  const Isa all = detect_isa();
  ::setenv("QUANTBRIDGE_ISA", "generic", 1);
  EXPECT_EQ(detect_isa(), Isa::generic);
  ::setenv("QUANTBRIDGE_ISA", "avx2", 1);
  EXPECT_LE(detect_isa(), Isa::avx2);
  EXPECT_EQ(detect_isa(), std::min(all, Isa::avx2));
  ::setenv("QUANTBRIDGE_ISA", "riscv", 1);
  EXPECT_EQ(detect_isa(), all);
  if (before == nullptr) {
    ::unsetenv("QUANTBRIDGE_ISA");
  } else {
    ::setenv("QUANTBRIDGE_ISA", saved.c_str(), 1);
  }
}

TEST(Processors, AtLeastOne) {
  EXPECT_GE(processors(), 1);
}

TEST(Processors, Quota) {
  EXPECT_EQ(quota_of("max 100000\n"), std::nullopt);
  EXPECT_EQ(quota_of("200000 100000\n"), 2);
  EXPECT_EQ(quota_of("150000 100000\n"), 2);
  EXPECT_EQ(quota_of("1000 100000\n"), 1);
  EXPECT_EQ(quota_of("99999999999999999999999 1"), std::nullopt);
  EXPECT_EQ(quota_of("100000 0"), std::nullopt);
  EXPECT_EQ(quota_of("100000"), std::nullopt);
  EXPECT_EQ(quota_of(""), std::nullopt);
  EXPECT_EQ(unified_cgroup("12:cpu:/x\n0::/a/b\n"), "/a/b");
  EXPECT_EQ(unified_cgroup("12:cpu:/x\n"), "");
}

TEST(Memory, PeakSeesATouchedBlock) {
  EXPECT_EQ(rss_anon("VmRSS:\t 12 kB\nRssAnon:\t     345 kB\n"), 345u * 1024);
  EXPECT_EQ(rss_anon("nothing"), 0u);
  sample_memory();
  const uint64_t before = peak_anonymous();
  {
    std::vector<char> block(64 << 20, 1);
    sample_memory();
    EXPECT_EQ(block[1 << 20], 1);
  }
  EXPECT_GE(peak_anonymous(), before + (48u << 20));
  const uint64_t peak = peak_anonymous();
  sample_memory();
  EXPECT_GE(peak_anonymous(), peak);
}

TEST(Regex, IsPythonsMatch) {
  EXPECT_TRUE(matches("model", "model.layers.0"));
  EXPECT_FALSE(matches("layers", "model.layers.0"));
  EXPECT_TRUE(matches(".*lm_head", "model.lm_head"));
  EXPECT_TRUE(matches(R"(model\.layers\.(?P<n>\d+)\..*(?P=n)$)", "model.layers.7.x7"));
  EXPECT_FALSE(matches(R"(.*mlp\.(?!gate$).*)", "model.mlp.gate"));
  EXPECT_TRUE(matches(R"(.*(?<=self_attn\.)q_proj$)", "model.self_attn.q_proj"));
  EXPECT_TRUE(matches("(?i)MODEL", "model"));
  EXPECT_TRUE(matches("", "anything"));
  EXPECT_TRUE(matches("a?", ""));
  EXPECT_TRUE(matches(R"(lm_head\Z)", "lm_head"));
  EXPECT_FALSE(matches(R"(lm_head\Z)", "lm_head\n"));
  EXPECT_TRUE(matches(R"(a\\Z)", "a\\Z"));
  EXPECT_TRUE(matches(R"(x\d{,2}y)", "x12y"));
  EXPECT_FALSE(matches(R"(x\d{,2}y)", "x123y"));
  EXPECT_TRUE(matches(R"([^]{,2}]x\{,2}[{,2}])", "ax{,2}{"));
  EXPECT_TRUE(matches("x{,2", "x{,2"));
  EXPECT_TRUE(matches("lm_head$", "lm_head\n"));
  EXPECT_TRUE(matches(R"(\u0041[\u0042])", "AB"));
  EXPECT_TRUE(matches(R"(\w+$)", "\xc3\xa9t\xc3\xa9"));
  EXPECT_FALSE(matches(".*", "\xff\xfe"));  // not UTF-8
}

TEST(Regex, RefusesWithTheOffset) {
  for (std::string_view bad : {"(", "[", "a**", "(?P<n>a)(?P<n>b)", "(*LIMIT_MATCH=4000000000)a", "*", "\\"}) {
    auto r = compile_regex(bad);
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_NE(r.error().what.find("offset"), std::string::npos) << r.error().what;
  }
  EXPECT_FALSE(compile_regex(std::string(1 << 20, 'a')).ok());
}

TEST(Regex, AHostilePatternEnds) {
  auto r = compile_regex("(a+)+$");
  ASSERT_TRUE(r.ok());
  EXPECT_FALSE((*r)->match_prefix(std::string(200, 'a') + "b"));
}

TEST(Regex, OneObjectServesSeveralThreads) {
  auto r = compile_regex(R"(model\.layers\.\d+\.mlp)");
  ASSERT_TRUE(r.ok());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        const std::string name = "model.layers." + std::to_string(i);
        if (!(*r)->match_prefix(name + ".mlp") || (*r)->match_prefix(name + ".attn")) wrong.fetch_add(1);
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace qb::host
