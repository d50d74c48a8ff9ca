// What repairs change, and what they must not: scales of fused groups with ratios of every kind, and experts that no sample reached.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "suite.h"

namespace qb::suite {
namespace {

constexpr const char* layer = "model.layers.0.self_attn.";
constexpr const char* members[] = {"q_proj", "k_proj", "v_proj"};

Tensor scalar(float x) {
  Tensor t{"F32", {}, std::string(4, '\0')};
  std::memcpy(t.bytes.data(), &x, 4);
  return t;
}

double scalar_of(const Weights& w, const std::string& name) {
  return values(w.tensors.at(name)).at(0);
}

std::string second_level(const char* member) {
  return fmt::format("{}{}.weight_scale_2", layer, member);
}

// A good NVFP4 checkpoint whose q, k and v have other second-level scales than each other.
void with_ratios(const Path& from, const Path& to, const double (&ratios)[3]) {
  std::filesystem::copy(from, to);
  Weights w = read_weights(from);
  for (size_t i = 0; i < 3; ++i) {
    const std::string name = second_level(members[i]);
    w.tensors[name] = scalar(static_cast<float>(scalar_of(w, name) * ratios[i]));
  }
  std::filesystem::remove(to / "model.safetensors");
  write_weights(to / "model.safetensors", w);
}

Weights dequantized(const Path& in, const Path& out) {
  JobOptions options = to_dialect("dense");
  options.dense_dtype = Elem::f32;
  options.repair = Repair::none;
  const Outcome outcome = convert(in, out, options);
  EXPECT_TRUE(outcome.written) << outcome.text();
  return read_weights(out);
}

Path good_nvfp4() {
  return root() / "broken" / "control_modelopt_nvfp4";
}

TEST(Repair, ScalesOfAFusedGroupBecomeTheLargest) {
  if (!std::filesystem::exists(good_nvfp4())) GTEST_SKIP() << "no fixtures in " << root();
  std::mt19937 random(7);
  std::uniform_real_distribution<double> any(0.2, 5);
  int exact = 0, rounded = 0;
  for (int round = 0; round < 10; ++round) {
    double ratios[3];
    for (double& r : ratios) r = round % 2 == 0 ? std::ldexp(1, static_cast<int>(random() % 4)) : any(random);
    SCOPED_TRACE(fmt::format("{} : {} : {}", ratios[0], ratios[1], ratios[2]));
    Scratch scratch;
    with_ratios(good_nvfp4(), scratch / "in", ratios);
    const Weights before = dequantized(scratch / "in", scratch / "before"), in = read_weights(scratch / "in");
    for (const Repair level : {Repair::none, Repair::exact, Repair::lossy}) {
      const Path out = scratch / fmt::format("out {}", to_string(level));
      JobOptions options = to_dialect("modelopt");
      options.repair = level;
      const Outcome outcome = convert(scratch / "in", out, options);
      ASSERT_TRUE(outcome.written) << outcome.text();
      const Weights w = read_weights(out);
      if (outcome.repairs.empty()) {
        const bool equal = ratios[0] == ratios[1] && ratios[1] == ratios[2];
        EXPECT_TRUE(level != Repair::lossy || equal);
        for (const auto& [name, tensor] : in.tensors) EXPECT_TRUE(tensor == w.tensors.at(name)) << name;
        continue;
      }
      ASSERT_EQ(outcome.repairs.size(), 1u);
      ASSERT_TRUE(outcome.repairs[0].max_relative_error.has_value());
      const double bound = *outcome.repairs[0].max_relative_error;
      EXPECT_TRUE(level == Repair::lossy || (level == Repair::exact && bound == 0));
      ++(bound == 0 ? exact : rounded);
      for (const char* member : members) {
        EXPECT_EQ(scalar_of(w, second_level(member)),
                  std::max({scalar_of(in, second_level("q_proj")), scalar_of(in, second_level("k_proj")), scalar_of(in, second_level("v_proj"))}));
        const std::string codes = fmt::format("{}{}.weight", layer, member);
        EXPECT_TRUE(w.tensors.at(codes) == in.tensors.at(codes)) << "codes changed";
      }
      const Weights after = dequantized(out, scratch / fmt::format("after {}", to_string(level)));
      for (const auto& [name, tensor] : before.tensors) {
        const std::vector<double> a = values(tensor), b = values(after.tensors.at(name));
        ASSERT_EQ(a.size(), b.size());
        for (size_t i = 0; i < a.size(); ++i) ASSERT_LE(std::fabs(a[i] - b[i]), std::fabs(a[i]) * (bound == 0 ? 0 : bound + 0x1p-22)) << name << " " << i;
      }
      // What is repaired stays as it is.
      const Path twice = scratch / fmt::format("twice {}", to_string(level));
      const Outcome again = convert(out, twice, options);
      EXPECT_TRUE(again.written && again.repairs.empty());
      for (const auto& [name, tensor] : w.tensors) EXPECT_TRUE(tensor == read_weights(twice).tensors.at(name)) << name;
    }
  }
  EXPECT_GT(exact, 0);
  EXPECT_GT(rounded, 0);
}

// Another dialect stores reciprocals: the largest scale is the least number there.
TEST(Repair, ReciprocalsAreBroughtTogetherToo) {
  if (!std::filesystem::exists(good_nvfp4())) GTEST_SKIP() << "no fixtures in " << root();
  Scratch scratch;
  with_ratios(good_nvfp4(), scratch / "in", {1, 2, 1});
  const Weights before = dequantized(scratch / "in", scratch / "before");
  JobOptions options = to_dialect("compressed_tensors");
  options.repair = Repair::none;
  ASSERT_TRUE(convert(scratch / "in", scratch / "apart", options).written);
  options.repair = Repair::exact;
  const Outcome outcome = convert(scratch / "apart", scratch / "out", options);
  ASSERT_TRUE(outcome.written) << outcome.text();
  ASSERT_EQ(outcome.repairs.size(), 1u);
  EXPECT_EQ(outcome.repairs[0].code, "fused-scale-mismatch");
  const Weights w = read_weights(scratch / "out");
  for (const char* member : members)
    EXPECT_EQ(scalar_of(w, fmt::format("{}{}.weight_global_scale", layer, member)), scalar_of(w, fmt::format("{}q_proj.weight_global_scale", layer)));
  const Weights apart = dequantized(scratch / "apart", scratch / "apart dense"), after = dequantized(scratch / "out", scratch / "after");
  for (const auto& [name, tensor] : apart.tensors) EXPECT_TRUE(values(tensor) == values(after.tensors.at(name))) << name;
}

Path some_experts() {
  for (const Fixture& f : fixtures("broken"))
    if (f.path.filename() == "moe_global_scales_100x") return f.path;
  return {};
}

// An expert without scales for its inputs is refused; asked for, it takes the largest of its siblings'.
TEST(Repair, ExpertsTakeTheLargestInputScaleOfTheirSiblings) {
  const Path from = some_experts();
  if (from.empty()) GTEST_SKIP() << "no fixtures in " << root();
  Scratch scratch;
  std::filesystem::copy(from, scratch / "in");
  Weights w = read_weights(from);
  const auto name_of = [](int expert, const char* linear) { return fmt::format("model.layers.0.block_sparse_moe.experts.{}.{}.input_scale", expert, linear); };
  std::map<std::string, double> largest;
  for (const char* linear : {"w1", "w2", "w3"}) {
    w.tensors[name_of(1, linear)] = scalar(static_cast<float>(scalar_of(w, name_of(1, linear)) * 3));
    for (const int expert : {0, 1, 2}) largest[linear] = std::max(largest[linear], scalar_of(w, name_of(expert, linear)));
    w.tensors.erase(name_of(3, linear));
    std::erase(w.order, name_of(3, linear));
  }
  std::filesystem::remove(scratch / "in" / "model.safetensors");
  write_weights(scratch / "in" / "model.safetensors", w);
  JobOptions options = to_dialect("modelopt");
  EXPECT_FALSE(convert(scratch / "in", scratch / "out", options).written);
  options.repair = Repair::lossy;
  const Outcome outcome = convert(scratch / "in", scratch / "out", options);
  ASSERT_TRUE(outcome.written) << outcome.text();
  int guessed = 0;
  for (const pass::Repaired& r : outcome.repairs) {
    if (r.code != "input-scale-missing") continue;
    ++guessed;
    EXPECT_FALSE(r.max_relative_error.has_value());
    EXPECT_FALSE(r.how.empty());
  }
  EXPECT_EQ(guessed, 3);
  const Weights out = read_weights(scratch / "out");
  for (const auto& [linear, value] : largest) EXPECT_EQ(scalar_of(out, name_of(3, linear.c_str())), value) << linear;
  for (const auto& [name, tensor] : w.tensors) EXPECT_TRUE(out.tensors.at(name) == tensor) << name;
}

}  // namespace
}  // namespace qb::suite
