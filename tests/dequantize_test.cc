// Every weight of every supported checkpoint, dequantized, against hashes that were computed from the bytes by other programs; every other checkpoint is
// refused.
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>

#include "quantbridge/bridge.h"
#include "sha256.h"
#include "suite.h"

namespace qb::suite {
namespace {

std::span<const std::byte> as_bytes(std::string_view s) {
  return std::as_bytes(std::span(s));
}

TEST(Sha256, StandardVectors) {
  EXPECT_EQ(sha256(as_bytes("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256(as_bytes("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(as_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(as_bytes(std::string(1000000, 'a'))), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// A tensor that belongs to a quantized weight or to the KV cache, or was measured for a weight, and has no place beside plain weights.
bool is_side(const std::string& name, const Json& quantized, const std::set<std::string>& plain) {
  const size_t dot = name.rfind('.');
  const std::string module = name.substr(0, dot), last = name.substr(dot + 1);
  if ((last.ends_with("_scale") || last.ends_with("_zero_point")) && plain.contains(module + ".weight")) return true;
  if (last == "k_scale" || last == "v_scale") return true;
  for (auto it = quantized.begin(); it != quantized.end(); ++it)  // of stacked experts the weight is a parameter, and what belongs to it has its name in front
    if (name.starts_with(it.key() + "_")) return !name.ends_with("_bias");
  const std::string part = module.ends_with(".weight_quantizer") ? module.substr(0, module.rfind('.')) : module;  // low-rank factors lie one deeper
  return quantized.contains(part + ".weight") && last != "bias";
}

void dequantize(const Fixture& f) {
  SCOPED_TRACE(f.name);
  Result<Bridge> bridge = Bridge::open(f.path.string());
  ASSERT_TRUE(bridge.ok()) << bridge.error().what;
  for (const Problem& p : bridge->problems())
    EXPECT_NE(p.severity, Severity::error) << p.code << " " << p.tensor << p.module << ": " << p.found << "; expected " << p.expected;
  const Weights source = f.weights();
  const Json& hashes = f.expected["weights"];
  std::set<std::string> left, kept, others;  // others: of transforms
  if (const Json* list = find(f.expected, "other_tensors"); list != nullptr)
    for (auto it = list->begin(); it != list->end(); ++it) others.insert(it.key());
  if (const Json* list = find(f.expected, "unquantized"); list != nullptr)
    for (const Json& name : *list) kept.insert(name.get<std::string>());
  for (const auto& [name, tensor] : source.tensors)
    if (!is_side(name, hashes, kept) && !others.contains(name)) left.insert(name);
  for (auto it = hashes.begin(); it != hashes.end(); ++it) left.insert(it.key());
  const Target dense{.dialect = "dense", .stored = true, .dense_dtype = "f32"};
  const Result<void> done = bridge->for_each_tensor(dense, [&](const qb::Tensor& t) {
    EXPECT_EQ(left.erase(t.name), 1u) << t.name << " is not expected, or came twice";
    EXPECT_EQ(t.dtype, "F32") << t.name;
    if (const Json* want = find(hashes, t.name); want != nullptr) {
      EXPECT_EQ(std::vector<int64_t>(t.shape.begin(), t.shape.end()), (*want)["shape"].get<std::vector<int64_t>>()) << t.name;
      EXPECT_EQ(sha256(t.bytes), (*want)["sha256"].get<std::string>()) << t.name;
    } else if (const auto plain = source.tensors.find(t.name); plain != source.tensors.end()) {
      const Tensor wide{t.dtype, {t.shape.begin(), t.shape.end()}, std::string(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size())};
      EXPECT_EQ(wide.shape, plain->second.shape) << t.name;
      EXPECT_TRUE(values(wide) == values(plain->second)) << t.name << ": a plain weight changed";
    }
    return true;
  });
  EXPECT_TRUE(done.ok()) << done.error().what;
  for (const std::string& name : left) ADD_FAILURE() << name << " did not come";
}

void refuse(const Fixture& f, const std::string& why) {
  SCOPED_TRACE(f.name + ": " + why);
  Scratch scratch;
  for (const char* dialect : {"dense", "modelopt", "compressed_tensors", "hf_fp8"}) {
    const Outcome outcome = convert(f.path, scratch / "out", to_dialect(dialect));
    EXPECT_FALSE(outcome.written) << "to " << dialect;
    const std::set<std::string> codes = outcome.codes();
    EXPECT_TRUE(codes.contains("algorithm-unsupported") || codes.contains("tensor-unclaimed")) << outcome.text();
    EXPECT_FALSE(std::filesystem::exists(scratch / "out"));
    EXPECT_FALSE(std::filesystem::exists(scratch / "out.partial"));
  }
}

TEST(Dequantize, EveryFixture) {
  int dequantized = 0, refused = 0;
  std::set<std::string> kinds;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq"})
    for (const Fixture& f : fixtures(folder)) {
      const Scope scope = scope_of(f);
      if (scope.in) {
        dequantize(f);
        ++dequantized;
        kinds.insert(scope.why);
      } else {
        refuse(f, scope.why);
        ++refused;
      }
    }
  std::printf("%d dequantized, %d refused\n", dequantized, refused);
  for (const char* kind : {"FP8",
                           "FP8 kv",
                           "FP8_PER_CHANNEL_PER_TOKEN",
                           "fp8_pb_wo",
                           "fp8_pb_real",
                           "NVFP4",
                           "NVFP4 kv",
                           "W4A16_NVFP4",
                           " kv",
                           "float-quantized",
                           "float-quantized kv",
                           "naive-quantized",
                           "nvfp4-pack-quantized",
                           "nvfp4-pack-quantized kv",
                           "mixed-precision",
                           "dense kv",
                           "dense uncompressed",
                           "float-quantized sparse-24-bitmask",
                           "pack-quantized online transforms",
                           "int-quantized",
                           "pack-quantized",
                           "fp8 tiles",
                           "fp8 tensor",
                           "awq",
                           "mxfp4 stacks",
                           "gptq 3",
                           "gptq 4",
                           "gptq 4 ordered",
                           "gptq_p 6"})
    EXPECT_TRUE(kinds.contains(kind)) << "no fixture of " << kind;
}

// A supported Llama of each producer under another family's name.
void rename_family(const char* model_type, const std::function<void(const Fixture&)>& test) {
  for (const char* folder : {"modelopt", "compressed_tensors"}) {
    bool done = false;
    for (const Fixture& f : fixtures(folder)) {
      if (done || !scope_of(f).in || string_at(f.config, "model_type") != "llama") continue;
      Scratch scratch;
      std::filesystem::copy(f.path, scratch / "renamed");
      Json config = f.config;
      config["model_type"] = model_type;
      std::filesystem::remove(scratch / "renamed" / "config.json");
      write_bytes(scratch / "renamed" / "config.json", dump_json(config));
      test(fixture_at(scratch / "renamed"));
      done = true;
    }
    EXPECT_TRUE(done) << folder;
  }
}

// No producer's checkpoint of the Mistral family is small enough to stand here; its modules are called as Llama's are.
TEST(Dequantize, MistralHasTheNamesOfLlama) {
  rename_family("mistral", [](const Fixture& f) {
    EXPECT_TRUE(scope_of(f).in);
    dequantize(f);
  });
}

// The tensors alone say enough to read, check and convert; what nobody knows is said.
TEST(Dequantize, AnUnknownFamilyIsReadByItsTensors) {
  rename_family("brand_new", [](const Fixture& f) {
    dequantize(f);
    for (const char* dialect : {"dense", "modelopt", "compressed_tensors"}) {
      Scratch scratch;
      const Outcome outcome = convert(f.path, scratch / "out", to_dialect(dialect));
      EXPECT_TRUE(outcome.written || outcome.codes().contains("scheme-inexpressible")) << outcome.text();
      EXPECT_TRUE(outcome.codes().contains("family-unknown")) << outcome.text();
    }
  });
}

}  // namespace
}  // namespace qb::suite
