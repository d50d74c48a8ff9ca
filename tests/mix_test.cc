// What each group loses is what the model loses when that group alone is changed, however layers are gone through together; and it is measured once.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "bridge/mix.h"
#include "host/host.h"
#include "suite.h"

namespace qb::suite {
namespace {

struct Mixer {
  explicit Mixer(const char* fixture) : path(*checkpoint_at(fixture)), session(*open_session(path)) {
    job = to_dialect("compressed_tensors");
    job.quantize.emplace();
    job.quantize->regex = host::compile_regex;
    context.limits = {.memory_budget = 64 << 20, .threads = 2};
    context.isa = host::detect_isa();
    for (int s = 0; s < 3; ++s) {
      std::vector<int32_t> ids(static_cast<size_t>(20 + 5 * s));
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * i * 7 + static_cast<size_t>(s) * 13 + 1) % 60);
      samples.push_back(std::move(ids));
    }
  }

  bool open(const std::vector<std::string>& schemes) {
    Diagnostics diag;
    const Result<bool> done = mix_space(session, job, schemes, "", context, space, diag);
    EXPECT_TRUE(done.ok()) << done.error().what;
    for (const Problem& p : diag.all()) ADD_FAILURE() << p.code << " " << p.module << ": " << p.found;
    return done && *done;
  }
  Mix plain() const {
    Mix out;
    for (const MixGroup& g : space.groups) {
      size_t at = 0;
      while (space.schemes[g.options[at].scheme].scheme) ++at;
      out.push_back(at);
    }
    return out;
  }
  void measure(SensitivityFile& file) {
    const Result<void> done = measure_layers(Sensitivity::divergence, session, space, samples, file, context, {.pool = pool, .scratch = scratch / ""});
    ASSERT_TRUE(done.ok()) << done.error().what;
  }
  SensitivityFile file(const char* name, const char* digest = "one") { return *SensitivityFile::open(scratch / name, digest); }

  Scratch scratch;
  Path path;
  Session session;
  JobOptions job;
  Context context;
  host::ThreadPool pool{2};
  std::vector<std::vector<int32_t>> samples;
  MixSpace space;
};

TEST(Mix, GroupsAreWhatEnginesHoldTogether) {
  Mixer m("base/qwen2_moe_tiny");
  ASSERT_TRUE(m.open({"mxfp4", "int8_channel", "bf16"}));
  std::map<std::string, std::set<std::string>> groups;
  uint64_t weights = 0;
  for (const MixGroup& g : m.space.groups) {
    for (const size_t i : g.modules) groups[g.match].insert(m.space.plain.modules[i].path);
    weights += g.weights;
  }
  EXPECT_EQ(weights, m.space.weights);
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(groups[layer + "self_attn.qkv_proj"], (std::set{layer + "self_attn.q_proj", layer + "self_attn.k_proj", layer + "self_attn.v_proj"}));
  EXPECT_EQ(groups[layer + "self_attn.o_proj"].size(), 1u);
  const std::set<std::string>& experts = groups["model.layers.0.mlp.experts"];
  EXPECT_EQ(experts.size() % 3, 0u);
  EXPECT_GE(experts.size(), 6u);  // gate, up and down of each
  for (const auto& [match, modules] : groups) EXPECT_EQ(match.find(".experts."), match.npos) << match;
  // A configuration says the mixture, and nothing else.
  for (size_t round = 0; round < 3; ++round) {
    Mix mix;
    for (size_t g = 0; g < m.space.groups.size(); ++g) mix.push_back((g + round) % m.space.groups[g].options.size());
    Result<pass::QuantConfig> config = pass::parse_quant_config(m.space.config(mix));
    ASSERT_TRUE(config.ok()) << config.error().what;
    Result<pass::QuantizeOptions> options = pass::quantize_options(std::move(*config), "", "compressed_tensors");
    ASSERT_TRUE(options.ok());
    options->regex = host::compile_regex;
    ir::Checkpoint made = m.space.plain;
    const ir::Checkpoint expected = m.space.with(mix);
    Diagnostics diag;
    ASSERT_TRUE(pass::quantize(made, *options, diag));
    EXPECT_TRUE(diag.all().empty());
    for (size_t i = 0; i < made.modules.size(); ++i) EXPECT_EQ(made.modules[i].scheme, expected.modules[i].scheme) << made.modules[i].path;
  }
}

TEST(Mix, WhatAGroupLosesIsMeasuredAtTheOutput) {
  Mixer m("base/qwen2_moe_tiny");
  ASSERT_TRUE(m.open({"mxfp4", "int8_channel", "fp8_channel:fp8_token", "bf16"}));
  SensitivityFile file = m.file("whole");
  m.measure(file);
  const std::vector<calib::Item> items = mix_items(m.space, file, Sensitivity::divergence);
  const Mix plain = m.plain();
  std::vector<Mix> alone;
  for (size_t g = 0; g < plain.size(); ++g)
    for (size_t o = 0; o < items[g].size(); ++o) {
      alone.push_back(plain);
      alone.back()[g] = o;
    }
  SensitivityFile none = m.file("mixtures");
  const Result<std::vector<double>> found =
      mixture_divergences(m.session, m.space, alone, m.samples, none, m.context, {.pool = m.pool, .scratch = m.scratch / ""});
  ASSERT_TRUE(found.ok()) << found.error().what;
  size_t at = 0, followed = 0;
  for (size_t g = 0; g < plain.size(); ++g)
    for (size_t o = 0; o < items[g].size(); ++o) {
      const double predicted = items[g][o].cost, measured = (*found)[at++];
      if (o == plain[g]) {
        EXPECT_EQ(predicted, 0);
        EXPECT_EQ(measured, 0);
        continue;
      }
      followed += predicted == measured ? 1 : 0;  // the option that was followed to the output: the same numbers in the same order
      EXPECT_GT(predicted, measured / 30) << m.space.groups[g].match;
      EXPECT_LT(predicted, measured * 30) << m.space.groups[g].match;
    }
  EXPECT_GE(followed, m.space.groups.size());
}

TEST(Mix, IsMeasuredOnceAndGoesOn) {
  Mixer m("base/gemma2_tiny");
  ASSERT_TRUE(m.open({"mxfp4", "bf16"}));
  SensitivityFile whole = m.file("whole");
  m.measure(whole);
  // Half of the groups with one scheme, then all of them with two: what is there is not measured again, and the numbers are the same.
  SensitivityFile part = m.file("part");
  MixSpace all = m.space;
  m.space.groups.resize(all.groups.size() / 2);
  m.measure(part);
  m.space = std::move(all);
  SensitivityFile again = m.file("part");
  EXPECT_EQ(again.start(), SensitivityFile::Start::resumed);
  m.measure(again);
  const auto costs = [&](const SensitivityFile& f) {
    std::vector<double> out;
    for (const calib::Item& item : mix_items(m.space, f, Sensitivity::divergence))
      for (const calib::Option& o : item) out.push_back(o.cost);
    return out;
  };
  EXPECT_EQ(costs(again), costs(whole));
  m.samples.clear();  // nothing can be measured now
  SensitivityFile done = m.file("part");
  m.measure(done);
  EXPECT_EQ(costs(done), costs(whole));
  EXPECT_EQ(m.file("part", "another").start(), SensitivityFile::Start::restarted);
  write_bytes(m.scratch / "foreign", "{\"schema\": \"something else\"}");
  EXPECT_FALSE(SensitivityFile::open(m.scratch / "foreign", "one").ok());
}

TEST(Mix, WeightsAloneNeedNoData) {
  Mixer m("base/qwen2_moe_tiny");
  ASSERT_TRUE(m.open({"mxfp4", "int8_channel", "fp8_channel", "bf16"}));
  SensitivityFile file = m.file("weights");
  const Result<void> done = measure_weights(m.session, m.space, file, m.context, {.pool = m.pool, .scratch = m.scratch / ""});
  ASSERT_TRUE(done.ok()) << done.error().what;
  double sums[4] = {}, weights = 0;
  const std::vector<calib::Item> items = mix_items(m.space, file, Sensitivity::weights);
  for (size_t g = 0; g < items.size(); ++g) {
    if (items[g].size() < 4) continue;  // mxfp4 has no whole blocks there
    for (size_t o = 0; o < 4; ++o) sums[o] += items[g][o].cost;
    weights += static_cast<double>(m.space.groups[g].weights) / static_cast<double>(m.space.weights);
  }
  for (double& sum : sums) sum /= weights;
  // E2M1 is off by a tenth of a weight, E4M3 by some 2^-5 of each, eight bits by less; plain numbers by nothing.
  EXPECT_NEAR(sums[0], 0.0138, 0.004);
  EXPECT_NEAR(sums[2], 0.0007, 0.0003);
  EXPECT_LT(sums[1], sums[2]);
  EXPECT_EQ(sums[3], 0);
}

}  // namespace
}  // namespace qb::suite
