// Quantizing a producer's source model gives that producer's codes and weight scales, byte for byte.
//
// Which base model a fixture was made from is found by its plain tensors: the embedding and the norms are the same bytes. Activation scales come from
// calibration and are not compared; neither are the weights of fixtures whose producer changed them after the formulas (see `calibrated`).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "quantbridge/bridge.h"
#include "recipe/recipe.h"
#include "suite.h"

namespace qb::suite {
namespace {

// Presets that search for scales on calibration data or rewrite them afterwards: llm-compressor's recipe says so, of ModelOpt's the last word of the producer's
// case name.
bool calibrated(const Fixture& f) {
  const std::string& name = f.name;
  const std::string recipe = read_bytes(f.path / "recipe.yaml");
  for (const char* word : {"GPTQModifier", "AWQModifier", "SmoothQuantModifier"})
    if (recipe.find(word) != recipe.npos) return true;
  for (const char* word : {"awq_clip", "-compressed", "_auto"})
    if (name.starts_with("modelopt/") && name.ends_with(word)) return true;
  return false;
}

// The recipe that a case of ModelOpt was made with, where no tensor and no label says it.
std::string recipe_of(const Fixture& f) {
  constexpr std::pair<const char*, const char*> by_name[] = {
      {"nvfp4_static", "nvfp4_mse.modelopt"}, {"four_over_six", "nvfp4_four_over_six.modelopt"}, {"w4a8_nvfp4_fp8", "nvfp4_fp8_stage.modelopt"}};
  for (const auto& [word, recipe] : by_name)
    if (f.name.starts_with("modelopt/") && f.name.ends_with(word)) return recipe;
  return "";
}

struct Group {
  ir::Scheme scheme;  // without static activations
  std::set<std::string> modules;
};

// The fixture's quantized linears by what their weights are.
std::vector<Group> groups_of(const Session& s) {
  std::vector<Group> out;
  for (const ir::Module& m : s.checkpoint.modules) {
    if (!m.scheme || m.kind != arch::Kind::linear || m.path == "lm_head") continue;
    ir::Scheme scheme = *m.scheme;
    if (scheme.input && scheme.input->when == ir::When::fixed) scheme.input.reset();
    // Integers are packed where activations stay as they are, and else lie in bytes, unless the producer was told otherwise: the codes are the same.
    if (is_integer_code(scheme.weight.code)) {
      scheme.input.reset();
      const bool bytes = m.part(ir::Role::code)->container == Elem::i8 && s.dialect->name == "compressed_tensors";
      if (bytes) scheme.input = *ir::parse_activation("int8_token");
    }
    if (scheme.features != ir::Features{}) continue;  // what pre-scales and low-rank parts are was found by calibration
    auto it = std::find_if(out.begin(), out.end(), [&](const Group& g) { return g.scheme == scheme; });
    if (it == out.end()) it = out.insert(out.end(), {scheme, {}});
    it->modules.insert(m.path);
  }
  return out;
}

// What went wrong; nothing when `out` has every tensor of the target.
std::optional<std::string> quantized(const Fixture& base, const Target& target, std::map<std::string, Tensor>& out) {
  Result<Bridge> bridge = Bridge::open(base.path.string());
  if (!bridge) return bridge.error().what;
  const Result<void> done = bridge->for_each_tensor(target, [&](const qb::Tensor& t) {
    out[t.name] = {t.dtype, {t.shape.begin(), t.shape.end()}, std::string(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size())};
    return true;
  });
  if (!done) return done.error().what;
  return std::nullopt;
}

// fp8_pb_real has a recipe that no quantization uses, because the labels of ModelOpt do not tell the two apart: it is run by itself.
void quantize_real(const Weights& base, const std::set<std::string>& modules, std::map<std::string, Tensor>& out) {
  const recipe::Recipe* recipe = recipe::find_recipe("fp8_block_real.modelopt");
  ASSERT_NE(recipe, nullptr);
  for (const std::string& path : modules) {
    const Tensor& w = base.tensors.at(path + ".weight");
    const int64_t n = w.shape[0], k = w.shape[1], rows = (n + 127) / 128, cols = (k + 127) / 128;
    const Elem source = *elem_from_safetensors(w.dtype), scale = recipe->scale_elem(source);
    Tensor codes{"F8_E4M3", {n, k}, std::string(static_cast<size_t>(n * k), '\0')};
    Tensor scales{std::string(info(scale).safetensors), {rows, cols}, std::string(static_cast<size_t>(rows * cols * bits(scale) / 8), '\0')};
    recipe->run({.weights = w.bytes.data(),
                 .source = source,
                 .rows = n,
                 .k = k,
                 .n = n,
                 .amax = 0,
                 .type = {.code = Elem::e4m3, .scale = ir::ScaleValues::any, .block = {128, 128}},
                 .codes = reinterpret_cast<std::byte*>(codes.bytes.data()),
                 .scales = reinterpret_cast<std::byte*>(scales.bytes.data()),
                 .global = nullptr});
    out[path + ".weight"] = std::move(codes);
    out[path + ".weight_scale"] = std::move(scales);
  }
}

bool is_weight_part(const std::string& last) {
  for (const char* part : {"weight", "weight_packed", "weight_scale", "weight_scale_2", "weight_global_scale", "weight_shape", "weight_zero_point"})
    if (last == part) return true;
  return false;
}

TEST(ProducerBytes, EveryFixture) {
  const std::vector<Fixture> bases = fixtures("base");
  std::vector<Weights> base_weights;
  for (const Fixture& b : bases) base_weights.push_back(b.weights());
  std::set<std::string> seen;
  int compared = 0, tensors = 0;
  for (const char* folder : {"modelopt", "compressed_tensors"})
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in || calibrated(f)) continue;
      const Weights weights = f.weights();
      const Fixture* base = base_of(bases, base_weights, f, weights);
      if (base == nullptr) {
        std::printf("%s: no base model here\n", f.name.c_str());
        continue;
      }
      SCOPED_TRACE(f.name + " from " + base->name);
      Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok()) << session.error().what;
      for (const Group& group : groups_of(*session)) {
        Target target{.dialect = folder,
                      .scheme = to_string(group.scheme),
                      .numerics = std::string_view(folder) == "modelopt" ? "modelopt" : "llm-compressor",
                      .recipe = recipe_of(f)};
        SCOPED_TRACE(target.scheme + ", numerics " + target.numerics);
        for (const std::string& path : linears(weights))
          if (!group.modules.contains(path) && path != "lm_head") target.ignore.push_back(path);
        std::map<std::string, Tensor> made;
        if (session->checkpoint.quant_algo == "fp8_pb_real") {
          quantize_real(base->weights(), group.modules, made);
        } else if (const std::optional<std::string> trouble = quantized(*base, target, made)) {
          ADD_FAILURE() << *trouble;
          continue;
        }
        for (const auto& [name, tensor] : weights.tensors) {
          const size_t dot = name.rfind('.');
          if (!group.modules.contains(name.substr(0, dot)) || !is_weight_part(name.substr(dot + 1))) continue;
          const auto it = made.find(name);
          if (it == made.end()) {
            ADD_FAILURE() << name << " was not made";
            continue;
          }
          EXPECT_EQ(describe(it->second), describe(tensor)) << name;
          EXPECT_TRUE(it->second.bytes == tensor.bytes) << name << ": other bytes";
          ++tensors;
        }
        seen.insert(target.recipe.empty() ? target.numerics + " " + to_string(group.scheme.weight) : target.recipe);
        ++compared;
      }
    }
  std::printf("%d quantizations, %d tensors\n", compared, tensors);
  for (const char* made : {"modelopt fp8_tensor",
                           "modelopt fp8_channel",
                           "modelopt fp8_128x128",
                           "modelopt nvfp4",
                           "modelopt nvfp4_g32",
                           "llm-compressor fp8_tensor",
                           "llm-compressor fp8_channel",
                           "llm-compressor fp8_128x128",
                           "llm-compressor fp8_64x32",
                           "llm-compressor fp8_g64",
                           "llm-compressor nvfp4",
                           "llm-compressor int8_channel",
                           "llm-compressor int8_g128",
                           "llm-compressor int4_tensor",
                           "llm-compressor int4_channel",
                           "llm-compressor int4_g128",
                           "llm-compressor int3_g128",

                           "llm-compressor int8_channel_asym",
                           "llm-compressor int2_g128",
                           "nvfp4_mse.modelopt",
                           "nvfp4_four_over_six.modelopt",
                           "nvfp4_fp8_stage.modelopt"})
    EXPECT_TRUE(seen.contains(made)) << "no fixture for " << made;
}

}  // namespace
}  // namespace qb::suite
