// There and back: modelopt -> compressed_tensors -> modelopt and so on give the same tensors byte for byte and documents of the same meaning; without the
// notes in the middle file's metadata, the same numbers. What only one side can say is refused.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <tuple>
#include <utility>

#include "io/safetensors.h"
#include "suite.h"

namespace qb::suite {
namespace {

// What two dialects can both say, scheme by scheme. Each row needs a fixture; every other pair of a fixture's schemes and a dialect is refused.
constexpr struct {
  const char *from, *through, *scheme;
  bool needs_notes = false;  // the middle has no word for a part of it: without the notes the way back is refused
  bool one_way = false;      // read and not written by where it comes from
  bool elsewhere = false;    // its fixture is not in the project's own selection
  bool regrouped = false;    // the middle has smaller groups, which come back: the same weights
} shared[] = {
    {"modelopt", "compressed_tensors", "fp8_tensor:fp8_tensor_static"},
    {"modelopt", "compressed_tensors", "fp8_channel:fp8_token"},
    {"modelopt", "compressed_tensors", "fp8_128x128"},
    {"modelopt", "compressed_tensors", "nvfp4:nvfp4"},
    {"modelopt", "compressed_tensors", "nvfp4"},
    {.from = "modelopt", .through = "compressed_tensors", .scheme = "nvfp4_g32", .regrouped = true},
    {"modelopt", "compressed_tensors", "mxfp4"},
    {"modelopt", "compressed_tensors", "mxfp8:mxfp8_up"},
    {"modelopt", "compressed_tensors", "int4_g128"},
    {"modelopt", "compressed_tensors", "int8_channel"},
    {"modelopt", "compressed_tensors", "int8_channel:int8_tensor_static"},
    {"modelopt", "compressed_tensors", "none"},
    {"modelopt", "awq", "int4_g128"},
    {"modelopt", "gptq", "int4_g128"},
    {"modelopt", "gptq", "int8_channel", false, false, true},
    {"modelopt", "hf_fp8", "fp8_tensor:fp8_tensor_static"},
    {"compressed_tensors", "modelopt", "fp8_tensor:fp8_tensor_static"},
    {"compressed_tensors", "modelopt", "fp8_channel:fp8_token"},
    {"compressed_tensors", "modelopt", "fp8_128x128"},
    {"compressed_tensors", "modelopt", "fp8_128x128:fp8_g128"},
    {"compressed_tensors", "modelopt", "nvfp4:nvfp4"},
    {"compressed_tensors", "modelopt", "nvfp4"},
    {"compressed_tensors", "modelopt", "mxfp4"},
    {"compressed_tensors", "modelopt", "mxfp4:mxfp4"},
    {"compressed_tensors", "modelopt", "mxfp8:mxfp8"},
    {"compressed_tensors", "modelopt", "int4_g128"},
    {"compressed_tensors", "modelopt", "int4_g64"},
    {"compressed_tensors", "modelopt", "int4_g32"},
    {"compressed_tensors", "modelopt", "int8_channel"},
    {"compressed_tensors", "modelopt", "int8_channel:int8_tensor_static"},
    {"compressed_tensors", "modelopt", "none"},
    {"compressed_tensors", "hf_fp8", "fp8_128x128:fp8_g128"},
    {"compressed_tensors", "hf_fp8", "fp8_tensor:fp8_tensor_static"},
    {"hf_fp8", "compressed_tensors", "fp8_128x128:fp8_g128"},
    {"hf_fp8", "compressed_tensors", "fp8_tensor:fp8_tensor_static"},
    {"hf_fp8", "compressed_tensors", "fp8_tensor:fp8_token"},
    {"hf_fp8", "modelopt", "fp8_128x128:fp8_g128", true},
    {"hf_fp8", "modelopt", "fp8_tensor:fp8_tensor_static"},
    {"compressed_tensors", "awq", "int4_g128"},
    {"compressed_tensors", "awq", "int4_g64"},
    {"compressed_tensors", "awq", "int4_g32"},
    {"compressed_tensors", "awq", "int4_channel"},
    {"compressed_tensors", "awq", "int4_g128_asym", false, false, true},
    {"compressed_tensors", "gptq", "int2_g128"},
    {"compressed_tensors", "gptq", "int3_g128"},
    {"compressed_tensors", "gptq", "int3_g64", false, false, true},
    {"compressed_tensors", "gptq", "int4_g32+actorder", false, true, true},
    {"compressed_tensors", "gptq", "int4_g64_asym+actorder", false, true},
    {"compressed_tensors", "gptq", "int4_g128"},
    {"compressed_tensors", "gptq", "int4_g64"},
    {"compressed_tensors", "gptq", "int4_g32"},
    {"compressed_tensors", "gptq", "int4_channel"},
    {"compressed_tensors", "gptq", "int4_g128_asym", false, false, true},
    {"compressed_tensors", "gptq", "int5_g128", false, false, true},
    {"compressed_tensors", "gptq", "int6_g128", false, false, true},
    {"compressed_tensors", "gptq", "int7_g128", false, false, true},
    {"compressed_tensors", "gptq", "int8_g128"},
    {"compressed_tensors", "gptq", "int8_channel"},
    {"awq", "compressed_tensors", "int4_g128"},
    {"awq", "compressed_tensors", "int4_g128_asym"},
    {"awq", "compressed_tensors", "int4_g64_asym", false, false, true},
    {"awq", "modelopt", "int4_g128"},
    {"awq", "gptq", "int4_g128"},
    {"awq", "gptq", "int4_g128_asym"},
    {"awq", "gptq", "int4_g64_asym", false, false, true},
    {"gptq", "compressed_tensors", "int3_g128"},
    {"gptq", "compressed_tensors", "int4_g128"},
    {"gptq", "compressed_tensors", "int4_g64_asym"},
    {"gptq", "compressed_tensors", "int6_g64"},
    {"gptq", "compressed_tensors", "int8_g128", false, false, true},
    {"gptq", "compressed_tensors", "int4_channel", false, false, true},
    {"gptq", "awq", "int4_channel", false, false, true},
    {"gptq", "modelopt", "int4_g128"},
    {"gptq", "awq", "int4_g128"},
    {"gptq", "awq", "int4_g64_asym"},
    {"hf_mxfp4", "compressed_tensors", "mxfp4 in stacks"},
    {"hf_mxfp4", "modelopt", "mxfp4 in stacks"},
    {"modelopt", "compressed_tensors", "nvfp4:nvfp4 in stacks"},
    {"modelopt", "compressed_tensors", "fp8_tensor:fp8_tensor_static in stacks", false, false, true},
    {"modelopt", "compressed_tensors", "fp8_tensor:fp8_token in stacks", false, false, true},
    {"modelopt", "hf_fp8", "fp8_tensor:fp8_tensor_static in stacks", false, false, true},
    {"dense", "modelopt", "none"},
    {"dense", "compressed_tensors", "none"},
    {"dense", "hf_fp8", "none"},
    {"dense", "hf_mxfp4", "none"},
    {"dense", "awq", "none"},
    {"dense", "gptq", "none"},
};
// Dialects that can hold several schemes beside each other, those of KV caches, and quantized embeddings.
constexpr std::string_view takes_several[] = {"modelopt", "compressed_tensors", "gptq"}, takes_kv[] = {"modelopt", "compressed_tensors"},
                           takes_embeddings[] = {"modelopt", "compressed_tensors"};
constexpr std::string_view shared_kv = "kv:fp8_tensor_static";  // the caches that two dialects can both say
constexpr const char* targets[] = {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq"};

void same_bytes(const Weights& want, const Weights& got) {
  for (const auto& [name, tensor] : want.tensors) {
    const auto it = got.tensors.find(name);
    if (it == got.tensors.end()) {
      ADD_FAILURE() << name << " is missing";
      continue;
    }
    EXPECT_EQ(describe(it->second), describe(tensor)) << name;
    EXPECT_TRUE(it->second.bytes == tensor.bytes) << name << ": other bytes";
  }
  for (const auto& [name, tensor] : got.tensors) EXPECT_TRUE(want.tensors.contains(name)) << name << " " << describe(tensor) << " was not there";
}

bool is_code(const std::string& dtype) {
  return dtype == "U8" || dtype.starts_with("F8_");
}

// Numbers of one tensor; a scalar may be one unit in the last place of float32 away.
void same_values(const std::string& name, const Tensor& want, const Tensor& got) {
  if (is_code(want.dtype) || is_code(got.dtype)) {
    EXPECT_EQ(describe(got), describe(want)) << name;
    EXPECT_TRUE(got.bytes == want.bytes) << name << ": other codes";
    return;
  }
  const std::vector<double> a = values(want), b = values(got);
  ASSERT_EQ(b.size(), a.size()) << name;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<float>(a[i]), y = static_cast<float>(b[i]);
    const bool near = a.size() == 1 && (y == std::nextafter(x, 2 * x) || y == std::nextafter(x, 0.0f));
    ASSERT_TRUE(a[i] == b[i] || near) << name << "[" << i << "]: " << fmt::format("{} became {}", a[i], b[i]);
  }
}

// Hugging Face fp8 has two spellings for the scales of tensors; which one a file had is a note for the way back.
void spell_as_transformers(Weights& w) {
  constexpr std::pair<std::string_view, std::string_view> words[] = {{".weight_scale", ".weight_scale_inv"}, {".input_scale", ".activation_scale"}};
  for (const auto& [from, to] : words) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : w.tensors)
      if (name.ends_with(from)) names.push_back(name);
    for (const std::string& name : names) {
      auto node = w.tensors.extract(name);
      node.key() = name.substr(0, name.size() - from.size()) + std::string(to);
      w.tensors.insert(std::move(node));
    }
  }
}

void same_numbers(const Weights& want, const Weights& got) {
  for (const auto& [name, tensor] : want.tensors) {
    const auto it = got.tensors.find(name);
    if (it == got.tensors.end())
      ADD_FAILURE() << name << " is missing";
    else
      same_values(name, tensor, it->second);
  }
  for (const auto& [name, tensor] : got.tensors) {
    if (want.tensors.contains(name)) continue;
    // A producer that writes no KV scales means 1.
    const bool default_scale = name.ends_with("k_scale") || name.ends_with("v_scale");
    EXPECT_TRUE(default_scale && values(tensor) == std::vector<double>{1.0}) << name << " was not there";
  }
}

bool same_layout(const Weights& a, const Weights& b) {
  for (const auto& [name, tensor] : a.tensors) {
    const auto it = b.tensors.find(name);
    if (it == b.tensors.end() || (is_code(tensor.dtype) && describe(it->second) != describe(tensor))) return false;
  }
  return true;
}

// Where one scheme can be stored in several ways, and nothing says which it was: the weights' values are the same, but for the last place of scalars.
void same_weights(const Path& want, const Path& got, const Path& scratch) {
  std::filesystem::create_directories(scratch);
  JobOptions options = to_dialect("dense");
  options.dense_dtype = Elem::f32;
  options.stored = true;
  ASSERT_TRUE(convert(want, scratch / "want", options).written);
  ASSERT_TRUE(convert(got, scratch / "got", options).written);
  const Weights a = read_weights(scratch / "want"), b = read_weights(scratch / "got");
  ASSERT_EQ(a.order.size(), b.order.size());
  for (const auto& [name, tensor] : a.tensors) {
    ASSERT_TRUE(b.tensors.contains(name)) << name;
    const std::vector<double> x = values(tensor), y = values(b.tensors.at(name));
    ASSERT_EQ(x.size(), y.size()) << name;
    for (size_t i = 0; i < x.size(); ++i) ASSERT_LE(std::abs(x[i] - y[i]), std::abs(x[i]) * 0x1p-22) << name << "[" << i << "]";
  }
}

void same_meaning(const Fixture& want, const Weights& weights, const Fixture& got, const std::string& dialect) {
  if (dialect == "awq" || dialect == "gptq") {
    EXPECT_EQ(packed_meaning(got), packed_meaning(want));
  } else if (dialect == "hf_fp8") {
    EXPECT_EQ(hf_fp8_meaning(got, weights), hf_fp8_meaning(want, weights));
  } else if (dialect == "modelopt") {
    const auto same = [&](const ModelOptMeaning& a, const ModelOptMeaning& b, const char* file) {
      EXPECT_EQ(b.algo, a.algo) << file;
      EXPECT_EQ(b.kv, a.kv) << file;
      EXPECT_EQ(b.excluded, a.excluded) << file;
    };
    same(modelopt_file_meaning(want, weights), modelopt_file_meaning(got, weights), "hf_quant_config.json");
    same(modelopt_embedded_meaning(want, weights), modelopt_embedded_meaning(got, weights), "config.json");
  } else {
    const CompressedMeaning a = compressed_meaning(want, weights), b = compressed_meaning(got, weights);
    EXPECT_EQ(b.schemes, a.schemes);
    EXPECT_EQ(b.ignored, a.ignored);
    EXPECT_EQ(b.kv, a.kv);
  }
}

// `noted` counts the files with notes for the way back. Stacked experts are taken apart on the way there, and put together again.
void there_and_back(const Fixture& f, const std::string& dialect, const std::string& through, bool needs_notes, bool stacked, int& noted) {
  SCOPED_TRACE("through " + through);
  Scratch scratch;
  const Outcome there = convert(f.path, scratch / "middle", to_dialect(through));
  ASSERT_TRUE(there.written) << "to " << through << ": " << there.text();
  JobOptions home = to_dialect(dialect);
  if (stacked) home.forms.experts = pass::Form::joined;
  const Outcome back = convert(scratch / "middle", scratch / "back", home);
  ASSERT_TRUE(back.written) << "back: " << back.text();
  const Weights want = f.weights();
  same_bytes(want, read_weights(scratch / "back"));
  if (dialect != "dense" && dialect != "hf_mxfp4") same_meaning(f, want, fixture_at(scratch / "back"), dialect);

  noted += drop_metadata(scratch / "middle", "quantbridge.origin");
  const Outcome bare = convert(scratch / "middle", scratch / "bare", home);
  EXPECT_EQ(bare.written, !needs_notes) << "back without origin: " << bare.text();
  if (needs_notes) return;
  ASSERT_TRUE(bare.written) << "back without origin: " << bare.text();
  SCOPED_TRACE("without origin");
  Weights numbers = want, came = read_weights(scratch / "bare");
  if (dialect == "awq" || dialect == "gptq" || (dialect != "hf_fp8" && !same_layout(numbers, came)))
    return same_weights(f.path, scratch / "bare", scratch / "dense");
  if (dialect == "hf_fp8") {
    spell_as_transformers(numbers);
    spell_as_transformers(came);
  }
  same_numbers(numbers, came);
}

// The same weights, and the way back is refused.
void there_alone(const Fixture& f, const std::string& dialect, const std::string& through) {
  SCOPED_TRACE("through " + through);
  Scratch scratch;
  const Outcome there = convert(f.path, scratch / "middle", to_dialect(through));
  ASSERT_TRUE(there.written) << "to " << through << ": " << there.text();
  same_weights(f.path, scratch / "middle", scratch / "dense");
  EXPECT_FALSE(convert(scratch / "middle", scratch / "back", to_dialect(dialect)).written);
}

// The same weights there and back, in other groups, and the report says so.
void there_regrouped(const Fixture& f, const std::string& dialect, const std::string& through) {
  SCOPED_TRACE("through " + through);
  Scratch scratch;
  Result<Session> session = open_session(f.path);
  Context context;
  Job job;
  Diagnostics diag;
  ASSERT_TRUE(session.ok() && plan_job(*session, to_dialect(through), context, job, diag));
  ASSERT_EQ(job.plan.scheme_changes.size(), 1U);
  EXPECT_EQ(job.plan.scheme_changes[0].to, "nvfp4");
  ASSERT_TRUE(convert(f.path, scratch / "middle", to_dialect(through)).written);
  same_weights(f.path, scratch / "middle", scratch / "dense");
  ASSERT_TRUE(convert(scratch / "middle", scratch / "back", to_dialect(dialect)).written);
  same_weights(f.path, scratch / "back", scratch / "dense again");
}

void refused(const Fixture& f, const std::string& to) {
  Scratch scratch;
  const Outcome outcome = convert(f.path, scratch / "out", to_dialect(to));
  EXPECT_FALSE(outcome.written) << "to " << to;
  EXPECT_TRUE(outcome.codes().contains("scheme-inexpressible")) << outcome.text();
  EXPECT_FALSE(std::filesystem::exists(scratch / "out"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "out.partial"));
}

// Scales that were measured for weights which are stored as they were: no dialect writes them, and what is lost is said.
bool has_calibration(const Session& s) {
  return std::any_of(s.checkpoint.modules.begin(), s.checkpoint.modules.end(), [](const ir::Module& m) { return m.part(ir::Role::calibration) != nullptr; });
}

void without_calibration(const Fixture& f) {
  for (const char* to : {"dense", "modelopt", "compressed_tensors", "hf_fp8"}) {
    SCOPED_TRACE(to);
    Scratch scratch;
    const Outcome outcome = convert(f.path, scratch / "out", to_dialect(to));
    ASSERT_TRUE(outcome.written) << outcome.text();
    EXPECT_FALSE(outcome.lost.empty());
    Weights want = f.weights();
    std::erase_if(want.tensors, [](const auto& t) { return t.first.ends_with("_scale") || t.first.ends_with("_zero_point"); });
    same_bytes(want, read_weights(scratch / "out"));
  }
}

// Sparse weights: no dialect writes them again, and every one writes the same values.
bool has_masks(const Session& s) {
  return std::any_of(s.checkpoint.modules.begin(), s.checkpoint.modules.end(), [](const ir::Module& m) {
    return std::any_of(m.parts.begin(), m.parts.end(), [](const ir::Stored& part) { return !part.mask.tensor.empty(); });
  });
}

void with_zeros_written_out(const Fixture& f) {
  for (const char* to : {"modelopt", "compressed_tensors"}) {
    SCOPED_TRACE(to);
    Scratch scratch;
    const Outcome outcome = convert(f.path, scratch / "out", to_dialect(to));
    ASSERT_TRUE(outcome.written) << outcome.text();
    ASSERT_FALSE(outcome.changes.empty());
    EXPECT_NE(outcome.changes.front().find("+sparse24 to "), std::string::npos) << outcome.changes.front();
    same_weights(f.path, scratch / "out", scratch / "dense");
  }
}

bool contains(std::span<const std::string_view> list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

TEST(Roundtrip, EveryFixture) {
  std::set<std::tuple<std::string, std::string, std::string>> seen;
  std::map<std::string, int> noted;
  int there = 0, only_one = 0;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq", "broken", "base"})
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in || (std::string_view(folder) == "broken" && string_at(f.expected, "class") != "good")) continue;
      SCOPED_TRACE(f.name);
      Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok()) << session.error().what;
      if (!session->readable) {
        ADD_FAILURE() << "not readable";
        continue;
      }
      if (has_calibration(*session)) {
        without_calibration(f);
        continue;
      }
      if (has_masks(*session)) {
        with_zeros_written_out(f);
        continue;
      }
      const std::string dialect(session->dialect->name);
      Kind kind = kind_of(*session);
      SCOPED_TRACE(kind.text());
      if (kind.schemes.empty()) kind.schemes.insert("none");
      for (const std::string through : targets) {
        if (through == dialect) continue;
        std::set<std::string> apart;  // stacks that a dialect has no place for are taken apart
        for (const std::string& scheme : kind.schemes) apart.insert(scheme.substr(0, scheme.find(" in stacks")));
        bool both = (apart.size() == 1 || contains(takes_several, through)) && (kind.kv.empty() || (kind.kv == shared_kv && contains(takes_kv, through))),
             notes = false, one_way = false, regrouped = false;
        for (const ir::Module& m : session->checkpoint.modules) both &= !(m.kind == arch::Kind::embedding && m.scheme) || contains(takes_embeddings, through);
        for (const std::string& scheme : kind.schemes) {
          const auto* const row = std::find_if(std::begin(shared), std::end(shared),
                                               [&](const auto& r) { return dialect == r.from && through == r.through && scheme == r.scheme; });
          both &= row != std::end(shared);
          notes |= row != std::end(shared) && row->needs_notes;
          one_way |= row != std::end(shared) && row->one_way;
          regrouped |= row != std::end(shared) && row->regrouped;
        }
        if (!both) {
          refused(f, through);
          ++only_one;
          continue;
        }
        if (regrouped)
          there_regrouped(f, dialect, through);
        else if (one_way)
          there_alone(f, dialect, through);
        else
          there_and_back(f, dialect, through, notes, kind.text().find("in stacks") != std::string::npos, noted[dialect]);
        for (const std::string& scheme : kind.schemes) seen.emplace(dialect, through, scheme);
        ++there;
      }
    }
  std::printf("%d there and back, %d refused\n", there, only_one);
  EXPECT_GT(noted["modelopt"], 0);
  EXPECT_GT(noted["compressed_tensors"], 0);
  for (const auto& s : shared)
    EXPECT_TRUE(s.elsewhere || seen.contains({s.from, s.through, s.scheme})) << "no fixture of " << s.scheme << " from " << s.from << " to " << s.through;
}

// Each dialect writes its own stacks as they were.
TEST(Conversion, StackedExpertsAreWrittenBackAsTheyWere) {
  int done = 0;
  for (const char* folder : {"hf_mxfp4", "modelopt"})
    for (const Fixture& f : fixtures(folder)) {
      Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok()) << session.error().what;
      if (!session->readable || kind_of(*session).text().find("in stacks") == std::string::npos) continue;
      SCOPED_TRACE(f.name);
      Scratch scratch;
      const Outcome outcome = convert(f.path, scratch / "out", to_dialect(std::string(session->dialect->name)));
      ASSERT_TRUE(outcome.written) << outcome.text();
      const Weights weights = f.weights();
      same_bytes(weights, read_weights(scratch / "out"));
      const Fixture got = fixture_at(scratch / "out");
      if (session->dialect->name == "modelopt")
        same_meaning(f, weights, got, "modelopt");
      else
        EXPECT_EQ(got.config["quantization_config"], f.config["quantization_config"]);
      ++done;
    }
  EXPECT_GE(done, 2);
}

// Outputs that are quantized, and transforms, are said by compressed-tensors alone.
TEST(Conversion, OutputActivationsAndTransformsAreWrittenBackAsTheyWere) {
  int done = 0;
  for (const Fixture& f : fixtures("compressed_tensors")) {
    if (!scope_of(f).in) continue;
    Result<Session> session = open_session(f.path);
    ASSERT_TRUE(session.ok()) << session.error().what;
    const bool only_here = std::any_of(session->checkpoint.modules.begin(), session->checkpoint.modules.end(),
                                       [](const ir::Module& m) { return !m.transforms.empty() || (m.scheme && m.scheme->features.output); });
    if (!only_here) continue;
    SCOPED_TRACE(f.name);
    Scratch scratch;
    const Outcome outcome = convert(f.path, scratch / "out", to_dialect("compressed_tensors"));
    ASSERT_TRUE(outcome.written) << outcome.text();
    const Weights weights = f.weights();
    same_bytes(weights, read_weights(scratch / "out"));
    const Fixture got = fixture_at(scratch / "out");
    same_meaning(f, weights, got, "compressed_tensors");
    EXPECT_EQ(got.config["quantization_config"]["transform_config"], f.config["quantization_config"]["transform_config"]);
    Result<Session> again = open_session(scratch / "out");
    ASSERT_TRUE(again.ok() && again->readable);
    EXPECT_EQ(kind_of(*again).text(), kind_of(*session).text());
    for (const char* to : {"modelopt", "hf_fp8", "awq", "gptq"}) refused(f, to);
    ++done;
  }
  EXPECT_GE(done, 2);
}

// AutoAWQ's codes lie along the other axis. Without zero points compressed-tensors can say them too, and then they are repacked: in square weights both orders
// have the same shape, so that copied bytes would go unnoticed.
TEST(Conversion, AwqCodesAreRepacked) {
  int done = 0;
  for (const Fixture& f : fixtures("awq")) {
    if (!scope_of(f).in) continue;
    SCOPED_TRACE(f.name);
    Scratch scratch;
    const Path symmetric = scratch / "symmetric";
    std::filesystem::create_directories(symmetric);
    Json config = f.config;
    config["quantization_config"]["zero_point"] = false;
    write_bytes(symmetric / "config.json", dump_json(config));
    std::vector<TensorInfo> tensors;
    std::string data;
    const Weights w = f.weights();
    for (const std::string& name : w.order) {
      const Tensor& t = w.tensors.at(name);
      if (name.ends_with(".qzeros")) continue;
      tensors.push_back({.name = name, .dtype = *elem_from_safetensors(t.dtype), .shape = t.shape, .offset = data.size(), .bytes = t.bytes.size()});
      data += t.bytes;
    }
    write_bytes(symmetric / "model.safetensors", write_safetensors_header(tensors, {{"format", "pt"}}) + data);
    const Outcome before = convert(symmetric, scratch / "before", to_dialect("dense"));
    ASSERT_TRUE(before.written) << before.text();
    const Outcome there = convert(symmetric, scratch / "there", to_dialect("compressed_tensors"));
    ASSERT_TRUE(there.written) << there.text();
    const Outcome after = convert(scratch / "there", scratch / "after", to_dialect("dense"));
    ASSERT_TRUE(after.written) << after.text();
    same_bytes(read_weights(scratch / "before"), read_weights(scratch / "after"));
    ++done;
  }
  EXPECT_GT(done, 0);
}

}  // namespace
}  // namespace qb::suite
