#include <gtest/gtest.h>

#include "ir/shorthand.h"
#include "ir/types.h"

namespace qb::ir {
namespace {

// Everything that the IR can say about one side, from small sets of sizes.
std::vector<QuantType> all_types() {
  std::vector<QuantType> out;
  for (Elem plain : {Elem::bf16, Elem::f16, Elem::f32}) out.push_back({.code = plain});
  for (Elem code :
       {Elem::e4m3, Elem::e5m2, Elem::e2m3, Elem::e3m2, Elem::e2m1, Elem::int2, Elem::int3, Elem::int4, Elem::int5, Elem::int6, Elem::int7, Elem::i8})
    for (ScaleValues scale : {ScaleValues::any, ScaleValues::e4m3, ScaleValues::e8m0})
      for (Block block : {Block{0, 0}, Block{1, 0}, Block{1, 1}, Block{1, 16}, Block{1, 32}, Block{1, 100}, Block{2, 3}, Block{128, 128}, Block{64, 32}})
        for (Zero zero : {Zero::none, Zero::code}) out.push_back({code, scale, block, zero});
  return out;
}

std::vector<Features> all_features() {
  std::vector<Features> out;
  for (int mask = 0; mask < 16; ++mask)
    for (int rank : {0, 1, 32}) {
      out.push_back({(mask & 1) != 0, (mask & 2) != 0, (mask & 4) != 0, (mask & 8) != 0, rank});
      if (rank == 1) out.back().output = Activation{{.code = mask % 3 == 0 ? Elem::i8 : Elem::e4m3, .scale = ScaleValues::any, .block = {0, 0}}, When::fixed};
    }
  return out;
}

TEST(SchemeText, PrintsAndParsesBackEverythingTheIrCanSay) {
  const std::vector<QuantType> types = all_types();
  const std::vector<Features> features = all_features();
  size_t count = 0, turn = 0;
  for (const QuantType& w : types) {
    std::vector<Scheme> schemes{{.weight = w}};
    for (const QuantType& a : types)
      for (When when : {When::fixed, When::per_call}) {
        if (a.plain() && when == When::fixed) continue;
        schemes.push_back({.weight = w, .input = Activation{a, when}, .features = features[turn++ % features.size()]});
        const bool mx = a.scale == ScaleValues::e8m0 && a.block == Block{1, 32} && when == When::per_call;
        for (Rounding rounding : {Rounding::even, Rounding::up})
          if (mx) schemes.push_back({.weight = w, .input = Activation{a, when, rounding}});
      }
    for (const Scheme& s : schemes) {
      const std::string text = to_string(s);
      Result<Scheme> back = parse_scheme(text);
      ASSERT_TRUE(back) << text << ": " << back.error().what;
      ASSERT_EQ(*back, s) << text << " came back as " << to_string(*back);
      ++count;
    }
  }
  EXPECT_GT(count, 100000u);
}

// The rule for run-time scales belongs to MX blocks of activations.
TEST(SchemeText, OnlyMxBlocksHaveARuleForTheirScales) {
  for (const char* text :
       {"mxfp8_up", "mxfp8:fp8_token_up", "mxfp8:mxfp8_static_up", "fp8_128x128:mxfp8_g128_up", "nvfp4:nvfp4_up", "mxfp8_even", "mxfp8:fp8_token_even"})
    EXPECT_FALSE(parse_scheme(text).ok()) << text;
}

TEST(SchemeText, ExamplesOfTheDocumentation) {
  for (const char* text : {"fp8_channel:fp8_token", "fp8_128x128:fp8_g128", "int4_g128", "int8_channel:int8_tensor_static+prescale", "nvfp4:nvfp4", "nvfp4",
                           "nvfp4_g32", "fp8_tensor:fp8_tensor_static", "mxfp4:fp8_tensor_dyn", "int4_g128_asym+actorder", "bf16", "nvfp4:nvfp4_dyn",
                           "fp4_tensor@e4m3", "fp8_tensor:fp8_tensor_static+out_fp8_tensor_static", "mxfp8:mxfp8_up", "mxfp4:mxfp4_up", "mxfp4:mxfp4_even"}) {
    Result<Scheme> s = parse_scheme(text);
    ASSERT_TRUE(s) << s.error().what;
    EXPECT_EQ(to_string(*s), text);
  }
  EXPECT_EQ(to_string(*parse_scheme("fp4_g16@e4m3")), "nvfp4");
  EXPECT_EQ(to_string(*parse_scheme("fp8_1x128")), "fp8_g128");
  EXPECT_EQ(to_string(*parse_activation("fp8_tensor_static")), "fp8_tensor_static");
}

TEST(SchemeText, EveryShorthandParses) {
  for (const Shorthand& s : shorthands()) {
    Result<Scheme> scheme = parse_scheme(s.name);
    ASSERT_TRUE(scheme) << s.name << ": " << scheme.error().what;
    EXPECT_EQ(to_string(*scheme), s.scheme) << s.name;
  }
}

TEST(SchemeText, ErrorsSayWhatToWrite) {
  const auto error = [](const char* text) {
    Result<Scheme> s = parse_scheme(text);
    return s ? std::string("accepted") : s.error().what;
  };
  EXPECT_NE(error("fp8").find("fp8_channel"), std::string::npos) << error("fp8");
  EXPECT_NE(error("nvpf4").find("nvfp4"), std::string::npos) << error("nvpf4");
  EXPECT_NE(error("FP8_DINAMIC").find("FP8_DYNAMIC"), std::string::npos) << error("FP8_DINAMIC");
  EXPECT_NE(error("fp8_token").find("_channel"), std::string::npos);
  EXPECT_NE(error("fp8_channel:fp8_channel").find("_token"), std::string::npos);
  EXPECT_NE(error("fp8_tensor:fp8_tensor").find("_static"), std::string::npos);
  for (const char* text : {"",
                           ":",
                           "+",
                           "fp8_channel:",
                           "fp8_g0",
                           "fp8_g-1",
                           "fp8_g99999999",
                           "fp8_0x1",
                           "int4_g128_asym_asym",
                           "bf16_g128",
                           "fp8_channel+what",
                           "nvfp4_128x128",
                           "fp8_channel+prescale+prescale",
                           "fp8_channel+out_fp8_token",
                           "fp8_channel+out_fp8_tensor_dyn",
                           "fp8_channel+out_",
                           "fp8_channel@e5",
                           "nvfp4@e4m3",
                           "int4_static_g128",
                           "fp8_channel_static",
                           "fp8_g0128"})
    EXPECT_NE(error(text), "accepted") << text;
}

}  // namespace
}  // namespace qb::ir
