// What engines do with producers' checkpoints, and the conversion that would help.
#include <gtest/gtest.h>

#include "bridge/advise.h"
#include "suite.h"

namespace qb::suite {
namespace {

using target::Finding;
using target::Outcome;

std::vector<Finding> advise(const char* fixture, const char* engine) {
  Result<Session> s = open_session(suite::fixture_at(Path(QB_TEST_DATA) / "fixtures" / fixture).path);
  if (!s) {
    ADD_FAILURE() << s.error().what;
    return {};
  }
  return qb::advise(*s, *target::find_target(engine));
}

std::string conversion(const Finding& f) {
  const size_t at = f.action.find("--to ");
  return at == f.action.npos ? "" : f.action.substr(at + 5);
}

TEST(Advise, WhatIsLoadedNeedsNothing) {
  const std::vector<Finding> f = advise("modelopt/llama-nvfp4-kv_fp8", "vllm");
  ASSERT_EQ(f.size(), 2u);
  for (const Finding& one : f) {
    EXPECT_EQ(one.outcome, Outcome::loads);
    EXPECT_EQ(one.action, "");
  }
  EXPECT_EQ(f[0].scheme, "nvfp4:nvfp4");
  EXPECT_EQ(f[1].scheme, "kv:fp8_tensor_static");
}

TEST(Advise, WhatIsRefusedIsConvertedToWhatIsLoaded) {
  const std::vector<Finding> f = advise("modelopt/llama-int8", "vllm");
  ASSERT_FALSE(f.empty());
  EXPECT_EQ(f[0].outcome, Outcome::refused);
  EXPECT_NE(f[0].why.find("ModelOpt currently only supports"), f[0].why.npos);
  EXPECT_NE(conversion(f[0]), "");
}

TEST(Advise, WhatIsSilentlyWrongComesWithAConversion) {
  const std::vector<Finding> f = advise("modelopt/llama-fp8-kv_fp8", "transformers");
  ASSERT_FALSE(f.empty());
  EXPECT_EQ(f[0].outcome, Outcome::wrong);
  EXPECT_EQ(conversion(f[0]).rfind("dense", 0), 0u) << f[0].action << ": what it does with KV scales elsewhere is not known";
}

TEST(Advise, AlgorithmsThatAreNotLookedForBecomeUnquantized) {
  bool unquantized = false;
  for (const Finding& one : advise("modelopt/llama-mixed_many", "vllm")) unquantized |= one.outcome == Outcome::wrong && !one.scheme.empty();
  EXPECT_TRUE(unquantized);
}

TEST(Advise, ProblemsAreFindingsToo) {
  const std::vector<Finding> f = advise("broken/nvfp4_qkv_global_pow2", "vllm");
  ASSERT_FALSE(f.empty());
  EXPECT_EQ(f[0].outcome, Outcome::wrong);
  EXPECT_EQ(f[0].problem, "fused-scale-mismatch");
  EXPECT_FALSE(f[0].action.empty());
}

TEST(Advise, NoConversionOfWhatCannotBeConverted) {
  for (const Finding& one : advise("broken/fp8_scale_missing", "transformers")) EXPECT_EQ(conversion(one), "");
}

// No engine and no checkpoint is met with silence.
TEST(Advise, EveryCheckpointHasFindingsForEveryEngine) {
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq", "base"})
    for (const Fixture& f : fixtures(folder)) {
      Result<Session> s = open_session(f.path);
      ASSERT_TRUE(s.ok()) << f.name;
      for (const target::Target* t : target::targets()) {
        const std::vector<Finding> findings = qb::advise(*s, *t);
        EXPECT_FALSE(findings.empty()) << f.name << " " << t->name;
        size_t covered = 0, quantized = 0;
        for (const Finding& one : findings) covered += one.problem.empty() ? one.modules.size() : 0;
        for (const ir::Module& m : s->checkpoint.modules) quantized += m.scheme ? 1 : 0;
        EXPECT_EQ(covered, quantized) << f.name << " " << t->name;
      }
    }
}

}  // namespace
}  // namespace qb::suite
