// Quantizing what is quantized: the tensors that dequantizing to float32 and quantizing would give, whatever the source, and none are changed that have the
// scheme.
#include <gtest/gtest.h>

#include <cstdio>

#include "host/host.h"
#include "suite.h"

namespace qb::suite {
namespace {

JobOptions to_scheme(const std::string& dialect, const std::string& scheme) {
  JobOptions out = to_dialect(dialect);
  out.quantize = *pass::quantize_options(scheme, "", "", dialect);
  out.quantize->regex = host::compile_regex;
  return out;
}

// Plain weights of the source are what they were: their recipes see the numbers in their own format, so only weights that had another scheme are compared.
TEST(Requantize, IsDequantizingAndQuantizing) {
  int compared = 0, checkpoints = 0;
  std::set<std::string> dialects;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "gptq", "awq"})
    for (const Fixture& f : fixtures(folder)) {
      const Scratch scratch;
      const Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok());
      JobOptions dense = to_dialect("dense");
      dense.dense_dtype = Elem::f32;
      if (!convert(f.path, scratch / "dense", dense).written) continue;
      for (const auto& [dialect, scheme] : {std::pair{"compressed_tensors", "fp8_channel:fp8_token"}, {"modelopt", "nvfp4"}}) {
        SCOPED_TRACE(f.name + " to " + scheme);
        std::set<std::string> others;
        for (const ir::Module& m : session->checkpoint.modules)
          if (m.scheme && m.kind == arch::Kind::linear && !(m.scheme->weight == ir::parse_scheme(scheme)->weight)) others.insert(m.path);
        if (others.empty()) continue;
        const Path by = scratch / (std::string("by_") + dialect), at_once = scratch / (std::string("at_once_") + dialect);
        if (!convert(scratch / "dense", by, to_scheme(dialect, scheme)).written) continue;
        const Limits small{.memory_budget = 4 << 20, .threads = 2};
        const Outcome outcome = convert(f.path, at_once, to_scheme(dialect, scheme), small);
        if (!outcome.written) {
          // Stacked experts, and KV caches, which stay and which not every dialect has words for.
          EXPECT_TRUE(outcome.codes().contains("already-quantized") || outcome.codes().contains("scheme-inexpressible")) << outcome.text();
          continue;
        }
        ++checkpoints;
        dialects.insert(folder);
        const Weights want = read_weights(by), got = read_weights(at_once);
        for (const auto& [name, tensor] : want.tensors) {
          // A head that is quantized stays as it is by default.
          const size_t dot = name.rfind('.');
          const std::string path = name.substr(0, dot);
          if (!std::string_view(name).substr(dot + 1).starts_with("weight") || !others.contains(path) || !want.tensors.contains(path + ".weight_scale"))
            continue;
          const auto it = got.tensors.find(name);
          ASSERT_NE(it, got.tensors.end()) << name;
          EXPECT_TRUE(it->second == tensor) << name;
          ++compared;
        }
      }
    }
  EXPECT_GT(compared, 0);
  std::printf("%d tensors of %d checkpoints in %zu dialects\n", compared, checkpoints, dialects.size());
}

TEST(Requantize, TheSameSchemeKeepsEveryByte) {
  for (const Fixture& f : fixtures("modelopt")) {
    if (f.name != "modelopt/llama-w4a16_nvfp4" && f.name != "modelopt/llama-mxfp8") continue;
    const Result<Session> session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    std::string scheme;
    for (const ir::Module& m : session->checkpoint.modules)
      if (m.scheme) scheme = to_string(*m.scheme);
    const Scratch scratch;
    const Outcome outcome = convert(f.path, scratch / "out", to_scheme("modelopt", scheme));
    ASSERT_TRUE(outcome.written) << outcome.text();
    EXPECT_TRUE(read_weights(scratch / "out").tensors == read_weights(f.path).tensors) << f.name;
  }
}

}  // namespace
}  // namespace qb::suite
