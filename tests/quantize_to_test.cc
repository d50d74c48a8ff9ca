// Quantizing to a dialect at once gives the tensors that quantizing to compressed_tensors and converting gives, for every scheme that users know a name of.
// A second level of scales may be one unit in the last place away, since its reciprocal lies in between.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "ir/shorthand.h"
#include "quantbridge/bridge.h"
#include "recipe/recipe.h"
#include "suite.h"

namespace qb::suite {
namespace {

using Tensors = std::map<std::string, Tensor>;

std::optional<Tensors> tensors_of(const Bridge& bridge, const Target& target, std::string& why) {
  Tensors out;
  const Result<void> done = bridge.for_each_tensor(target, [&](const qb::Tensor& t) {
    out[t.name] = {t.dtype, {t.shape.begin(), t.shape.end()}, std::string(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size())};
    return true;
  });
  if (done) return out;
  why = done.error().what;
  return std::nullopt;
}

// What the path holds, as tensors of the dialect.
std::optional<Tensors> converted(const Path& from, const std::string& dialect, std::string& why) {
  const Result<Bridge> bridge = Bridge::open(from.string());
  if (bridge) return tensors_of(*bridge, {.dialect = dialect}, why);
  why = bridge.error().what;
  return std::nullopt;
}

TEST(QuantizeTo, AtOnceIsByCompressedTensors) {
  const Scratch scratch;
  std::vector<std::string> written;
  int compared = 0;
  for (const Fixture& base : fixtures("base")) {
    // One whose linears have whole groups of 128, and biases.
    if (base.name != "base/llama_small" && base.name != "base/qwen2_mini") continue;
    Result<Bridge> source = Bridge::open(base.path.string());
    ASSERT_TRUE(source.ok());
    std::set<std::string> schemes;
    for (const ir::Shorthand& s : ir::shorthands()) schemes.insert(to_string(*ir::parse_scheme(s.name)));
    for (const char* more : {"int4_g32", "int4_g64_asym", "int4_channel", "int4_channel_asym", "int3_g64_asym", "int8_g64", "int8_g32_asym", "int5_g64"})
      schemes.insert(more);
    for (const std::string& scheme : schemes)
      for (const char* numerics : {"modelopt", "llm-compressor"}) {
        SCOPED_TRACE(base.name + " to " + scheme + ", numerics " + numerics);
        std::string why;
        const Path middle = scratch / "middle";
        std::filesystem::remove_all(middle);
        const Target by{.dialect = "compressed_tensors", .scheme = scheme, .numerics = numerics};
        const bool possible = source->write(by, middle.string()).ok();
        for (const Dialect* dialect : dialects()) {
          if (dialect->write == nullptr || dialect->name == "dense") continue;
          const std::string name(dialect->name);
          SCOPED_TRACE(name);
          Target at_once = by;
          at_once.dialect = name;
          const std::optional<Tensors> got = tensors_of(*source, at_once, why);
          if (!possible) continue;
          const std::optional<Tensors> want = converted(middle, name, why);
          ASSERT_EQ(got.has_value(), want.has_value()) << why;
          if (!want) continue;
          ++compared;
          written.push_back(name + " " + scheme);
          ASSERT_EQ(got->size(), want->size());
          for (const auto& [tensor, expected] : *want) {
            const auto it = got->find(tensor);
            ASSERT_NE(it, got->end()) << tensor;
            EXPECT_EQ(describe(it->second), describe(expected)) << tensor;
            if (tensor.ends_with(".weight_scale_2")) {  // its reciprocal is stored in between
              const double x = values(expected)[0], y = values(it->second)[0];
              EXPECT_LE(std::abs(x - y), std::abs(x) * 0x1p-23) << tensor;
              continue;
            }
            EXPECT_TRUE(it->second.bytes == expected.bytes) << tensor << ": other bytes";
          }
        }
      }
  }
  std::printf("%d compared\n", compared);
  for (const char* expected :
       {"gptq int4_g128", "gptq int4_g128_asym", "gptq int4_channel", "gptq int3_g64_asym", "gptq int8_g128", "gptq int5_g64", "awq int4_g128",
        "awq int4_g128_asym", "awq int4_channel_asym", "hf_fp8 fp8_128x128:fp8_g128", "modelopt nvfp4", "modelopt int4_g128"})
    EXPECT_TRUE(std::find(written.begin(), written.end(), expected) != written.end()) << expected;
}

}  // namespace
}  // namespace qb::suite
