#include "oracle/oracle.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace qb::oracle {
namespace {

using kernel::Inputs;
using kernel::Kernel;
using kernel::Problem;

ir::Scheme scheme(std::string_view text) {
  auto r = ir::parse_scheme(text);
  EXPECT_TRUE(r.ok()) << text;
  return r.ok() ? *r : ir::Scheme{};
}

const host::Cpu& cpu(std::string_view name) {
  for (const host::Cpu& c : host::known_cpus()) {
    if (c.name == name) return c;
  }
  ADD_FAILURE() << "no " << name;
  return host::known_cpus().front();
}

std::string describe(const Choice& c) {
  std::string s;
  for (const Candidate& k : c.considered) {
    s += fmt::format("  {:30} {}\n", k.kernel->name, k.ok ? fmt::format("chosen, {:.0f} ns", k.cost_ns) : k.why);
  }
  return s;
}

// What processors of each kind run, and why, is written down: a change of a cost or of a word shows in the diff. QB_UPDATE_GOLDEN=1 writes the file anew.
TEST(Oracle, ChoicesForKnownProcessorsAreAsWrittenDown) {
  std::string text;
  for (const std::string_view name : {"generic", "haswell", "alderlake", "icelake", "zen4", "spr"}) {
    const host::Cpu& c = cpu(name);
    for (const std::string_view s : {"bf16", "f16", "f32", "fp8_channel:fp8_token", "fp8_128x128:fp8_g128", "nvfp4:nvfp4", "fp8_g128", "mxfp4", "int4_g128",
                                     "int4_g128:int8_token", "int8_channel:int8_token"}) {
      for (const int64_t m : {1, 512}) {
        const Problem p{m, 4096, 4096, scheme(s)};
        auto r = choose(p, c, kernel::kernels(), {});
        ASSERT_TRUE(r.ok()) << r.error().what;
        text += fmt::format("{}: {}\n{}", c.name, kernel::to_string(p), describe(*r));
      }
    }
  }
  const std::string path = std::string(QB_TEST_DATA) + "/kernel/choices.txt";
  if (std::getenv("QB_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << text;
  std::stringstream golden;
  golden << std::ifstream(path).rdbuf();
  EXPECT_EQ(golden.str(), text);
}

TEST(Oracle, EveryLoserHasAReason) {
  for (const host::Cpu& c : host::known_cpus()) {
    for (const std::string_view s : {"bf16", "f16", "fp8_tensor", "fp8_g128", "nvfp4", "mxfp4", "int4_g128_asym", "int3_g64", "int8_channel"}) {
      for (const Inputs inputs : {Inputs::as_scheme, Inputs::f32}) {
        auto r = choose(Problem{3, 100, 64, scheme(s), inputs}, c, kernel::kernels(), {});
        ASSERT_TRUE(r.ok()) << r.error().what;
        EXPECT_EQ(r->considered.size(), kernel::kernels().size());
        EXPECT_EQ(r->considered.front().kernel, r->winner);
        EXPECT_TRUE(host::covers(c.features, r->winner->needs));
        for (const Candidate& k : r->considered) EXPECT_EQ(k.ok, k.kernel == r->winner) << k.kernel->name;
        for (const Candidate& k : r->considered) EXPECT_EQ(k.why.empty(), k.ok) << k.kernel->name;
      }
    }
  }
}

// Whatever a scheme's codes, blocks, scales and activations are: no linear runs on the reference, with one token or with many.
TEST(Oracle, EveryWeightFormatHasAFastKernelOnEveryProcessor) {
  constexpr int64_t ms[] = {1, 8, 512};
  for (const host::Cpu& c : host::known_cpus()) {
    for (const std::string_view weight : {"bf16",
                                          "f16",
                                          "f32",
                                          "fp8_tensor",
                                          "fp8_channel",
                                          "fp8_channel@e8m0",
                                          "fp8_g10",
                                          "fp8_g64",
                                          "fp8_128x128",
                                          "fp8_128x128@e8m0",
                                          "fp8_64x32",
                                          "fp8_24x10",
                                          "mxfp8",
                                          "mxfp4",
                                          "nvfp4",
                                          "nvfp4_g32",
                                          "fp4_g24",
                                          "int2_g128",
                                          "int3_channel",
                                          "int4_g10",
                                          "int4_g32",
                                          "int4_g128_asym",
                                          "int5_g64",
                                          "int6_channel",
                                          "int7_tensor_asym",
                                          "int8_channel",
                                          "int8_g36_asym",
                                          "int8_48x20"}) {
      for (const std::string_view input : {"", ":fp8_tensor_static", ":fp8_tensor_dyn", ":fp8_token", ":fp8_g64", ":fp8_g128@e8m0", ":nvfp4", ":mxfp4",
                                           ":mxfp8", ":mxfp8_up", ":mxfp8_even", ":int8_token", ":int4_token", ":int8_tensor_asym_static", ":int8_g128"}) {
        for (const Inputs inputs : {Inputs::as_scheme, Inputs::f32}) {
          Problem p{1, 4096, 4096, scheme(std::string(weight) + std::string(input)), inputs};
          for (const bool ordered : {false, true}) {
            p.scheme.features.actorder = ordered;
            if (ordered && (!is_integer_code(p.scheme.weight.code) || p.scheme.weight.block.cols == 0 || p.scheme.weight.block.rows != 1)) continue;
            const auto plan = plan_linear(p, ms, c, kernel::kernels(), {});
            ASSERT_TRUE(plan.ok()) << plan.error().what;
            for (const auto& [m, choice] : plan->by_m) EXPECT_NE(choice.winner->name, "linear_ref") << c.name << ": " << kernel::to_string(p) << " for " << m;
          }
        }
      }
    }
  }
}

TEST(Oracle, ANoteSaysWhereCodesGrow) {
  const auto note = [](std::string_view text) {
    auto r = choose(Problem{1, 4096, 4096, scheme(text)}, cpu("zen4"), kernel::kernels(), {});
    return r.ok() ? std::string(r->winner->name) + ": " + r->considered.front().note : r.error().what;
  };
  EXPECT_EQ(note("int3_g64"), "linear_int4_bf16_avx512bf16: codes of 3 bits take 4 bits each in memory");
  EXPECT_EQ(note("int6_channel"), "linear_int8_bf16_avx512bf16: codes of 6 bits take 8 bits each in memory");
  EXPECT_EQ(note("int4_g64"), "linear_int4_bf16_avx512bf16: ");
  EXPECT_EQ(note("int4_g24"), "linear_int4_bf16_avx512bf16: groups of 24 columns take the room of 32");
  EXPECT_EQ(note("fp8_24x64"), "linear_fp8_bf16_avx512bf16: each row has its tiles' scales for itself in memory");
}

TEST(Oracle, APolicyIsFollowedWhereItIsLegal) {
  const Problem p{1, 4096, 4096, scheme("bf16")};
  const auto winner = [&](const Policy& policy, std::string_view host) {
    auto r = choose(p, cpu(host), kernel::kernels(), policy);
    return r.ok() ? std::string(r->winner->name) : r.error().what;
  };
  EXPECT_EQ(winner({}, "zen4"), "linear_bf16_bf16_avx512bf16");
  EXPECT_EQ(winner({.prefer = {"*_avx2"}, .deny = {}}, "zen4"), "linear_bf16_f32_avx2");
  EXPECT_EQ(winner({.prefer = {"nothing", "linear_????"}, .deny = {}}, "zen4"), "linear_bf16_bf16_avx512bf16");
  EXPECT_EQ(winner({.prefer = {"linear_???", "*"}, .deny = {}}, "zen4"), "linear_ref");
  EXPECT_EQ(winner({.prefer = {"*avx512*"}, .deny = {}}, "haswell"), "linear_bf16_f32_avx2");
  EXPECT_EQ(winner({.prefer = {}, .deny = {"*avx512bf16"}}, "zen4"), "linear_bf16_f32_avx512");
  EXPECT_EQ(winner({.prefer = {}, .deny = {}, .reference = true}, "zen4"), "linear_ref");
  const std::string why = winner({.prefer = {}, .deny = {"*"}}, "zen4");
  for (const Kernel* k : kernel::kernels()) EXPECT_NE(why.find(fmt::format("{}: denied by '*'", k->name)), std::string::npos) << why;
}

TEST(Oracle, RefusesWithEveryReason) {
  auto r = choose(Problem{1, 64, 64, scheme("fp6e2m3_channel")}, cpu("zen4"), kernel::kernels(), {});
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.error().what.find("linear_ref: knows no fp6e2m3_channel weights"), std::string::npos) << r.error().what;
  EXPECT_NE(r.error().what.find("linear_fp4_f32_avx2: reads fp4 weights, these are fp6e2m3_channel"), std::string::npos) << r.error().what;
}

TEST(Plan, OneLayoutServesAllBatchSizes) {
  const int64_t ms[] = {512, 1, 8, 1};
  auto r = plan_linear(Problem{1, 4096, 4096, scheme("nvfp4:nvfp4")}, ms, cpu("zen4"), kernel::kernels(), {});
  ASSERT_TRUE(r.ok()) << r.error().what;
  EXPECT_EQ(r->code_layout, ir::Layout::panel_fp4);
  EXPECT_EQ(r->scale_layout, ir::Layout::panel_scale);
  ASSERT_EQ(r->by_m.size(), 3u);
  EXPECT_EQ(r->by_m[0].first, 1);
  EXPECT_EQ(r->by_m[2].first, 512);
  for (const auto& [m, choice] : r->by_m) {
    EXPECT_EQ(choice.considered.size(), kernel::kernels().size());
    EXPECT_EQ(choice.winner->code_layout, r->code_layout);
    for (const Candidate& k : choice.considered) EXPECT_EQ(k.why.empty(), k.kernel == choice.winner) << k.kernel->name;
  }
  EXPECT_EQ(r->kernel_for(1), r->by_m[0].second.winner);
  EXPECT_EQ(r->kernel_for(7), r->by_m[0].second.winner);
  EXPECT_EQ(r->kernel_for(100000), r->by_m[2].second.winner);
  r = plan_linear(Problem{1, 64, 64, scheme("nvfp4")}, ms, cpu("zen4"), kernel::kernels(), {.prefer = {"linear_ref"}, .deny = {}});
  ASSERT_TRUE(r.ok()) << r.error().what;
  EXPECT_EQ(r->code_layout, ir::Layout::rows);
  EXPECT_FALSE(plan_linear(Problem{1, 64, 64, scheme("nvfp4")}, {}, cpu("zen4"), kernel::kernels(), {}).ok());
  EXPECT_FALSE(plan_linear(Problem{1, 64, 64, scheme("fp6e2m3_channel")}, ms, cpu("zen4"), kernel::kernels(), {}).ok());
}

TEST(Plan, TilesMultiplyManyTokensOfThePanelsThatVectorsReadForFew) {
  const int64_t ms[] = {1, 4, 512};
  for (const auto& [text, few, many] : {std::array{"int8_channel:int8_token", "linear_int8_int8_avx512vnni", "linear_int8_int8_amxint8"},
                                        {"int4_g128:int8_token", "linear_int4_int8_avx512vnni", "linear_int4_int8_amxint8"},
                                        {"mxfp4:int8_token", "linear_fp4_int8_avx512vnni", "linear_fp4_int8_amxint8"},
                                        {"bf16", "linear_bf16_bf16_avx512bf16", "linear_bf16_bf16_amxbf16"},
                                        {"fp8_128x128:fp8_g128", "linear_fp8_bf16_avx512bf16", "linear_fp8_bf16_amxbf16"},
                                        {"nvfp4", "linear_fp4_bf16_avx512bf16", "linear_fp4_bf16_amxbf16"},
                                        {"int4_g128", "linear_int4_bf16_avx512bf16", "linear_int4_bf16_amxbf16"}}) {
    const auto r = plan_linear(Problem{1, 4096, 4096, scheme(text)}, ms, cpu("spr"), kernel::kernels(), {});
    ASSERT_TRUE(r.ok()) << r.error().what;
    EXPECT_EQ(r->kernel_for(1)->name, few);
    EXPECT_EQ(r->kernel_for(4)->name, few);
    EXPECT_EQ(r->kernel_for(512)->name, many);
  }
}

}  // namespace
}  // namespace qb::oracle
