#include "target/target.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "dialect/modelopt_rows.h"

namespace qb::target {
namespace {

ir::Checkpoint checkpoint(std::string dialect, std::string label, const std::vector<std::string>& schemes, int64_t side = 256) {
  ir::Checkpoint c;
  c.dialect = std::move(dialect);
  c.quant_algo = std::move(label);
  for (const std::string& text : schemes) {
    ir::Module m;
    m.path = "model.layers." + std::to_string(c.modules.size());
    m.kind = arch::Kind::linear;
    m.n = m.k = side;
    m.scheme = *ir::parse_scheme(text);
    c.modules.push_back(std::move(m));
  }
  return c;
}

Problem problem(std::string code, std::string module) {
  Problem p;
  p.code = std::move(code);
  p.module = std::move(module);
  return p;
}

TEST(Target, TheFiveEnginesAreThere) {
  std::set<std::string_view> names;
  for (const Target* t : targets()) EXPECT_TRUE(names.insert(t->name).second);
  EXPECT_EQ(names, (std::set<std::string_view>{"vllm", "sglang", "trtllm", "transformers", "llamacpp"}));
  EXPECT_EQ(find_target("tgi"), nullptr);
}

// A table without a source is hearsay.
TEST(Target, EveryRowHasASourceAVersionAndWords) {
  const auto sourced = [](const Source& s) { return !s.at.empty() && !s.version.empty(); };
  const auto worded = [](Outcome outcome, std::string_view path, std::string_view why) { return outcome == Outcome::loads ? !path.empty() : !why.empty(); };
  for (const Target* t : targets()) {
    EXPECT_FALSE(t->title.empty() || t->version.empty());
    for (const Row& r : t->rows) {
      EXPECT_TRUE(sourced(r.source) && worded(r.outcome, r.path, r.why)) << t->name << " " << r.dialect << " " << r.label << " " << r.weight;
    }
    for (const KvRow& r : t->kv) EXPECT_TRUE(sourced(r.source) && worded(r.outcome, r.path, r.why)) << t->name << " " << r.scheme;
    for (const ProblemRow& r : t->problems) EXPECT_TRUE(sourced(r.source) && !r.why.empty()) << t->name << " " << r.code;
  }
  for (const auto rows : {common_problems(), safetensors_problems()})
    for (const ProblemRow& r : rows) EXPECT_TRUE(sourced(r.source) && !r.why.empty()) << r.code;
}

// Names in the tables that nobody has would never match.
TEST(Target, RowsNameDialectsAndProblemsThatExist) {
  const auto words = [](std::string_view text) {
    std::vector<std::string> out;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find(' ', at), text.size());
      out.emplace_back(text.substr(at, end - at));
      at = end + 1;
    }
    return out;
  };
  const auto known_dialects = [&](std::string_view text) {
    for (const std::string& w : words(text)) EXPECT_NE(find_dialect(w), nullptr) << w;
  };
  const auto known_codes = [&](std::string_view text) {
    for (const std::string& w : words(text)) EXPECT_TRUE(w.find('*') != w.npos || find_problem_kind(w) != nullptr) << w;
  };
  for (const Target* t : targets()) {
    for (const Row& r : t->rows) known_dialects(r.dialect);
    for (const KvRow& r : t->kv) known_dialects(r.dialect);
    for (const ProblemRow& r : t->problems) known_dialects(r.dialect), known_codes(r.code);
  }
  for (const ProblemRow& r : common_problems()) known_codes(r.code);
}

// Every algorithm of every dialect is judged by every engine: unknown is an answer, silence is none.
TEST(Target, EveryAlgorithmIsJudgedByEveryEngine) {
  std::vector<ir::Checkpoint> all;
  for (const qb::Row& row : modelopt::rows()) all.push_back(checkpoint("modelopt", std::string(row.label), {to_string(modelopt::meaning_of(row))}));
  for (const char* s : {"fp8_tensor:fp8_tensor_static", "fp8_channel:fp8_token", "fp8_128x128:fp8_g128", "nvfp4:nvfp4", "nvfp4", "mxfp4", "mxfp8:mxfp8",
                        "int4_g128", "int4_g128_asym", "int8_channel:int8_token", "int2_g32", "int4_g128+actorder", "int4_g128:fp8_token"})
    for (const char* label : {"float-quantized", "pack-quantized", "int-quantized", "naive-quantized", "mixed-precision"})
      all.push_back(checkpoint("compressed_tensors", label, {s}));
  all.push_back(checkpoint("hf_fp8", "fp8", {"fp8_128x128:fp8_g128"}));
  all.push_back(checkpoint("hf_mxfp4", "mxfp4", {"mxfp4"}));
  for (const char* label : {"gemm", "gemv"}) all.push_back(checkpoint("awq", label, {"int4_g128_asym"}));
  for (const char* label : {"gptq", "gptq_v2", "gptq_p"}) all.push_back(checkpoint("gptq", label, {"int4_g128+actorder"}));
  all.push_back(checkpoint("dense", "", {}));
  for (const Target* t : targets())
    for (const ir::Checkpoint& c : all) {
      const std::vector<Finding> findings = judge(*t, c, {});
      ASSERT_EQ(findings.size(), 1u) << t->name << " " << c.dialect << " " << c.quant_algo;
      EXPECT_FALSE(findings[0].scheme.empty());
      EXPECT_FALSE(findings[0].path.empty() && findings[0].why.empty());
      EXPECT_EQ(findings[0].modules.size(), c.modules.size());
      EXPECT_TRUE(findings[0].outcome == Outcome::unknown || !findings[0].source.at.empty()) << "what is claimed has a source";
    }
}

TEST(Target, WhatStopsComesFirst) {
  const ir::Checkpoint c = checkpoint("modelopt", "MIXED_PRECISION", {"nvfp4:nvfp4", "int4_g128:fp8_tensor_static", "nvfp4:nvfp4"});
  const std::vector<Problem> problems{problem("layers-missing", ""), problem("fused-scale-mismatch", "model.layers.0.qkv_proj"),
                                      problem("fused-scale-mismatch", "model.layers.1.qkv_proj")};
  const std::vector<Finding> f = judge(*find_target("vllm"), c, problems);
  ASSERT_EQ(f.size(), 4u);
  EXPECT_EQ(f[0].problem, "layers-missing");
  EXPECT_EQ(f[0].outcome, Outcome::refused);
  EXPECT_EQ(f[1].scheme, "int4_g128:fp8_tensor_static");  // an algorithm that it does not look for: silently unquantized
  EXPECT_EQ(f[1].outcome, Outcome::wrong);
  EXPECT_EQ(f[2].problem, "fused-scale-mismatch");
  EXPECT_EQ(f[2].modules.size(), 2u);
  EXPECT_EQ(f[3].outcome, Outcome::loads);
  EXPECT_EQ(f[3].modules, (std::vector<std::string>{"model.layers.0", "model.layers.2"}));
  EXPECT_EQ(summary(f), Outcome::refused);
  EXPECT_EQ(summary({}), Outcome::unknown);
}

TEST(Target, ShapesExpertsAndFeaturesChooseTheRow) {
  const Target& vllm = *find_target("vllm");
  EXPECT_EQ(summary(judge(vllm, checkpoint("modelopt", "fp8_pb_wo", {"fp8_128x128"}, 256), {})), Outcome::loads);
  EXPECT_EQ(summary(judge(vllm, checkpoint("modelopt", "fp8_pb_wo", {"fp8_128x128"}, 192), {})), Outcome::refused);
  EXPECT_EQ(summary(judge(vllm, checkpoint("compressed_tensors", "pack-quantized", {"int4_g128_asym"}), {})), Outcome::loads);
  ir::Checkpoint experts = checkpoint("compressed_tensors", "pack-quantized", {"int4_g128_asym"});
  experts.topology.modules.push_back({.path = experts.modules[0].path, .kind = arch::Kind::linear, .of_experts = "mlp.experts.{}.up_proj"});
  experts.modules[0].topology = 0;
  EXPECT_EQ(summary(judge(vllm, experts, {})), Outcome::refused);
  const Target& llamacpp = *find_target("llamacpp");
  EXPECT_EQ(summary(judge(llamacpp, checkpoint("compressed_tensors", "pack-quantized", {"int4_g128"}), {})), Outcome::loads);
  EXPECT_EQ(summary(judge(llamacpp, checkpoint("compressed_tensors", "pack-quantized", {"int4_g128+actorder"}), {})), Outcome::refused);
  EXPECT_EQ(summary(judge(llamacpp, checkpoint("modelopt", "NVFP4", {"nvfp4:nvfp4"}, 96), {})), Outcome::refused);
}

TEST(Target, CachesAndProblemsWithoutARowAreUnknown) {
  ir::Checkpoint c = checkpoint("modelopt", "FP8", {"fp8_tensor:fp8_tensor_static"});
  c.kv = ir::KvCache{.scheme = *ir::parse_activation("nvfp4"), .affine = true};
  const std::vector<Problem> problems{problem("tensor-unclaimed", "")};
  const std::vector<Finding> f = judge(*find_target("sglang"), c, problems);
  ASSERT_EQ(f.size(), 3u);
  EXPECT_EQ(f[0].scheme, "kv:nvfp4+affine");
  EXPECT_EQ(f[0].outcome, Outcome::unknown);
  EXPECT_EQ(f[1].problem, "tensor-unclaimed");
  EXPECT_NE(f[1].why.find("Not known"), f[1].why.npos);
  EXPECT_EQ(f[2].outcome, Outcome::loads);
}

}  // namespace
}  // namespace qb::target
