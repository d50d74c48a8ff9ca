// GPTQ's documents against its tensors: what a config promises and the tensors do not hold is named, and the tensors decide the values.
#include <gtest/gtest.h>

#include <functional>

#include "bridge/check.h"
#include "host/host.h"
#include "suite.h"

namespace qb::suite {
namespace {

namespace fs = std::filesystem;

// A fixture of GPTQ whose config has these values, with its documents changed.
struct Changed {
  Scratch scratch;
  Path path;
  Changed(const Path& from, const std::function<void(Json& quantization)>& change) : path(scratch / "changed") {
    fs::copy(from, path);
    for (const char* name : {"config.json", "quantize_config.json"}) {
      Json document = read_document(path / name);
      if (!document.is_object()) continue;
      fs::remove(path / name);
      change(document.contains("quantization_config") ? document["quantization_config"] : document);
      write_bytes(path / name, dump_json(document));
    }
  }
};

std::vector<Fixture> with(const std::function<bool(const Json& quantization)>& wanted) {
  std::vector<Fixture> out;
  for (Fixture& f : fixtures("gptq"))
    if (scope_of(f).in && wanted(f.config["quantization_config"])) out.push_back(std::move(f));
  return out;
}

Weights dequantized(const Path& from, std::set<std::string>& codes) {
  Scratch scratch;
  const Outcome outcome = convert(from, scratch / "dense", to_dialect("dense"));
  EXPECT_TRUE(outcome.written) << outcome.text();
  codes = outcome.codes();
  return outcome.written ? read_weights(scratch / "dense") : Weights{};
}

// The same values as without the change, and that problem.
void same_values_but(const Fixture& f, const std::function<void(Json&)>& change, const std::string& code) {
  SCOPED_TRACE(f.name);
  const Changed changed(f.path, change);
  std::set<std::string> before, after;
  const Weights want = dequantized(f.path, before), got = dequantized(changed.path, after);
  EXPECT_TRUE(got.tensors == want.tensors);
  EXPECT_FALSE(before.contains(code));
  EXPECT_EQ(after.contains(code), !code.empty());
}

TEST(Gptq, ZeroPointsThatTheConfigDenies) {
  int seen = 0;
  for (const Fixture& f : with([](const Json& q) { return !bool_at(q, "sym", true); })) {
    same_values_but(
        f, [](Json& q) { q["sym"] = true; }, "zero-point-mismatch");
    ++seen;
  }
  EXPECT_GT(seen, 0);
}

TEST(Gptq, AnOrderThatTheConfigDenies) {
  int seen = 0;
  for (const Fixture& f : with([](const Json& q) { return bool_at(q, "desc_act", false); })) {
    same_values_but(
        f, [](Json& q) { q["desc_act"] = false; }, "group-order-mismatch");
    ++seen;
  }
  EXPECT_GT(seen, 0);
}

// Promised, and not there: nothing is wrong with the values, and the scheme says what there is.
TEST(Gptq, AnOrderThatIsNone) {
  for (const Fixture& f : with([](const Json& q) { return !bool_at(q, "desc_act", false); })) {
    same_values_but(
        f, [](Json& q) { q["desc_act"] = true; }, "");
    break;
  }
}

TEST(Gptq, GroupsOfAnotherSize) {
  for (const Fixture& f : with([](const Json& q) { return int_at(q, "group_size", 0) > 0; }))
    same_values_but(
        f, [](Json& q) { q["group_size"] = int_at(q, "group_size", 0) / 2; }, "group-size-mismatch");
}

// The first rule that matches decides. The names stand at the start of patterns.
TEST(Gptq, RulesForSomeModules) {
  for (const Fixture& f : with([](const Json& q) { return int_at(q, "bits", 0) == 4; })) {
    const auto wrong = [](Json& q) {
      const int64_t bits = int_at(q, "bits", 0);
      q["bits"] = 8;
      q["dynamic"] = Json::object();
      q["dynamic"]["-:layers"] = Json::object();
      q["dynamic"]["+:.*\\.self_attn\\."] = Json{{"bits", bits}};
      q["dynamic"][".*\\.mlp\\.(gate|up)_proj$"] = Json{{"bits", bits}};
      q["dynamic"][".*down_proj"] = Json{{"bits", bits}};
      q["dynamic"]["-:.*down_proj"] = Json::object();
    };
    same_values_but(f, wrong, "");
    same_values_but(
        f,
        [](Json& q) {
          q["dynamic"] = Json{{"-:.*up_proj", Json::object()}};
        },
        "excluded-but-quantized");
    break;
  }
}

TEST(Gptq, DocumentsThatDisagree) {
  for (const Fixture& f : with([](const Json&) { return true; })) {
    if (!fs::exists(f.path / "quantize_config.json")) continue;
    SCOPED_TRACE(f.name);
    Changed alone(f.path, [](Json&) {});
    Json config = f.config;
    config.erase("quantization_config");
    write_bytes(alone.path / "config.json", dump_json(config));
    std::set<std::string> codes;
    EXPECT_TRUE(dequantized(alone.path, codes).tensors == dequantized(f.path, codes).tensors) << "quantize_config.json alone";

    Changed two(f.path, [](Json&) {});
    Json other = read_document(f.path / "quantize_config.json");
    other["checkpoint_format"] = string_at(other, "checkpoint_format") == "gptq" ? "gptq_v2" : "gptq";
    write_bytes(two.path / "quantize_config.json", dump_json(other));
    Scratch scratch;
    const Outcome outcome = convert(two.path, scratch / "dense", to_dialect("dense"));
    EXPECT_FALSE(outcome.written) << "no tensor says how zero points are stored";
    EXPECT_TRUE(outcome.codes().contains("config-disagree")) << outcome.text();
  }
}

TEST(Gptq, WhatIsNotRead) {
  const std::vector<Fixture> all = with([](const Json&) { return true; });
  ASSERT_FALSE(all.empty());
  const std::pair<const char*, Json> cases[] = {{"checkpoint_format", "marlin"},
                                                {"pack_dtype", "int16"},
                                                {"bits", 9},
                                                {"bits", "4"},
                                                {"group_size", 0},
                                                {"dynamic", Json::array({"x"})},
                                                {"sym", "no"},
                                                {"dynamic", Json{{"+:(", Json::object()}}},
                                                {"adapter", Json{{"rank", 8}}}};
  for (const auto& [key, value] : cases) {
    SCOPED_TRACE(key);
    const Changed changed(all.front().path, [&, k = key, v = value](Json& q) { q[k] = v; });
    Scratch scratch;
    const Outcome outcome = convert(changed.path, scratch / "dense", to_dialect("dense"));
    EXPECT_FALSE(outcome.written);
    EXPECT_FALSE(outcome.readable);
    EXPECT_FALSE(outcome.codes().empty());
  }
}

}  // namespace
}  // namespace qb::suite
