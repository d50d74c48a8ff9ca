#include <cmath>

#include "exec/execute.h"
#include "exec/test_support.h"

namespace qb {
namespace {

using namespace test;
using prog::Survey;
using prog::SurveyKind;
using prog::SurveyResult;

SurveyResult ask(const Survey& s, Source& source) {
  Context context;
  context.limits.memory_budget = 4096;  // several blocks
  auto r = survey(s, source, context);
  EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().what);
  return r.ok() ? *r : SurveyResult{};
}

TEST(Survey, FloatsOfEveryFormatAgree) {
  const std::vector<float> values = {1.5F, -2.0F, 0.0F, -0.0F, INFINITY, NAN, -0.25F, 96.0F};
  std::vector<float> many;
  std::vector<uint16_t> halves, brains;
  std::vector<double> doubles;
  for (int i = 0; i < 1000; ++i) {
    const float x = i < 900 ? 1.0F : values[static_cast<size_t>(i) % values.size()];
    many.push_back(x);
    halves.push_back(encode_f16(x));
    brains.push_back(encode_bf16(x));
    doubles.push_back(static_cast<double>(x));
  }
  Memory m;
  const std::vector<prog::Input> inputs = {m.add("a", Elem::f32, 10, 100, bytes_of(many)), m.add("b", Elem::f16, 10, 100, bytes_of(halves)),
                                           m.add("c", Elem::bf16, 10, 100, bytes_of(brains)), m.add("d", Elem::f64, 10, 100, bytes_of(doubles))};
  for (const prog::Input& in : inputs) {
    SCOPED_TRACE(in.tensor);
    const SurveyResult r = ask({SurveyKind::floats, in}, m);
    EXPECT_EQ(r.count, 1000);
    EXPECT_EQ(r.nan, 13);
    EXPECT_EQ(r.inf, 13);
    EXPECT_EQ(r.zero, 24);
    EXPECT_EQ(r.negative, 25);  // -2 and -0.25, not -0
    EXPECT_EQ(r.subnormal, 0);
    EXPECT_EQ(r.least, 0.25);
    EXPECT_EQ(r.largest, 96.0);
    EXPECT_EQ(r.first_bad, 901);  // the first NaN, though an infinity comes before it
  }
}

TEST(Survey, Subnormals) {
  Memory m;
  EXPECT_EQ(ask({SurveyKind::floats, m.add("a", Elem::f32, 1, 2, bytes_of<float>({1e-40F, 1e-30F}))}, m).subnormal, 1);
  EXPECT_EQ(ask({SurveyKind::floats, m.add("b", Elem::f16, 1, 2, bytes_of<uint16_t>({0x0001, 0x0400}))}, m).subnormal, 1);
  const SurveyResult r = ask({SurveyKind::floats, m.add("c", Elem::e4m3, 1, 4, {std::byte{0x07}, std::byte{0x08}, std::byte{0x81}, std::byte{0x80}})}, m);
  EXPECT_EQ(r.subnormal, 2);
  EXPECT_EQ(r.zero, 1);
  EXPECT_EQ(r.negative, 1);
  EXPECT_EQ(r.first_bad, 3);  // zero comes before negative
  const SurveyResult e = ask({SurveyKind::floats, m.add("d", Elem::e8m0, 1, 3, {std::byte{0}, std::byte{127}, std::byte{255}})}, m);
  EXPECT_EQ(e.subnormal, 0);
  EXPECT_EQ(e.nan, 1);
  EXPECT_EQ(e.least, 0x1p-127);
}

TEST(Survey, Narrowing) {
  Memory m;
  const prog::Input in = m.add("a", Elem::f32, 1, 6, bytes_of<float>({1.0F, 0.1F, 1e30F, 65504.0F, 1.0F + 0x1p-7F, NAN}));
  SurveyResult r = ask({SurveyKind::narrow_bf16, in}, m);
  EXPECT_EQ(r.inexact, 3);  // 0.1, 1e30, 65504
  EXPECT_EQ(r.nan, 1);
  r = ask({SurveyKind::narrow_f16, in}, m);
  EXPECT_EQ(r.inexact, 2);  // 0.1, 1e30
  EXPECT_EQ(r.first_bad, 5);
}

TEST(Survey, Rescaling) {
  Bytes all;
  for (int i = 0; i < 0x7F; ++i) all.push_back(static_cast<std::byte>(i));
  Memory m;
  prog::Input in = m.add("a", Elem::e4m3, 1, 0x7F, all);
  const auto times = [&](double factor) {
    in.times = factor;
    return ask({SurveyKind::rounding, in}, m);
  };
  EXPECT_EQ(times(1).inexact, 0);
  EXPECT_EQ(times(2).inexact, 8);          // above 224
  EXPECT_EQ(times(2).error, 0.5);          // 448 stands for 896
  EXPECT_EQ(times(0.5).inexact, 8);        // odd multiples of 2^-9 up to 15
  EXPECT_EQ(times(0.5).error, 1);          // 2^-10 became 0
  EXPECT_EQ(times(1.0 / 3).inexact, 126);  // all but zero
}

TEST(Survey, RoundingOfRowsAndColumns) {
  Memory m;
  prog::Input in = m.add("a", Elem::bf16, 2, 2, bytes_of<uint16_t>({encode_bf16(1), encode_bf16(3), encode_bf16(1), encode_bf16(0)}));
  const prog::Input rows = m.add("r", Elem::f32, 2, 1, bytes_of<float>({2.0F, 1 + 0x1p-8F}));
  const prog::Input cols = m.add("c", Elem::bf16, 1, 2, bytes_of<uint16_t>({encode_bf16(0.5F), encode_bf16(4)}), 0);
  in.by = {cols};
  EXPECT_EQ(ask({SurveyKind::rounding, in}, m).inexact, 0);
  in.by = {cols, rows};
  const SurveyResult r = ask({SurveyKind::rounding, in}, m);
  EXPECT_EQ(r.inexact, 1);
  EXPECT_EQ(r.first_bad, 2);
  EXPECT_EQ(r.error, 0x1p-8 / (1 + 0x1p-8));
  // Gemma's norms are stored as one less: 1 + 3 is doubled.
  in.by = {rows};
  in.plus = 1;
  EXPECT_EQ(ask({SurveyKind::rounding, in}, m).inexact, 0);  // the second row becomes 2 (1 + 2^-8) - 1 = 1 + 2^-7, and 2^-8
}

TEST(Survey, Equality) {
  Memory m;
  const prog::Input a = m.add("a", Elem::bf16, 4, 1, bytes_of<uint16_t>({1, 2, 3, 4}));
  prog::Input b = m.add("b", Elem::bf16, 4, 1, bytes_of<uint16_t>({1, 2, 5, 4}));
  EXPECT_EQ(ask({.kind = SurveyKind::equal, .input = a, .second = {a}}, m).inexact, 0);
  EXPECT_EQ(ask({.kind = SurveyKind::equal, .input = a, .second = {b}}, m).first_bad, 2);
  b.view.dims = {1, 1};
  Context context;
  EXPECT_FALSE(survey({.kind = SurveyKind::equal, .input = a, .second = {b}}, m, context).ok());
}

TEST(Survey, DeadCodes) {
  constexpr int64_t n = 6, k = 40;  // groups of 16: the last has 8
  Bytes codes(n * k / 2, std::byte{0x80}), scales(n * 3, std::byte{0x38});
  scales[0] = std::byte{0x00};           // row 0, group 0: its codes are 0 and -0 alone
  scales[3 * 2 + 2] = std::byte{0x80};   // row 2, the partial group, -0
  codes[2 * 20 + 19] = std::byte{0x10};  // ... which holds a code
  scales[3 * 5 + 1] = std::byte{0x00};   // row 5, group 1
  codes[5 * 20 + 8] = std::byte{0x07};
  codes[5 * 20 + 9] = std::byte{0x07};
  Memory m;
  Survey s;
  s.kind = SurveyKind::dead_codes;
  s.input = m.add("scale", Elem::e4m3, n, 3, scales);
  s.type = {Elem::e2m1, ir::ScaleValues::e4m3, {1, 16}};
  s.second = {m.add("top", Elem::e2m1, 2, k, Bytes(codes.begin(), codes.begin() + 40)),
              m.add("bottom", Elem::e2m1, 4, k, Bytes(codes.begin() + 40, codes.end()))};
  SurveyResult r = ask(s, m);
  EXPECT_EQ(r.count, 18);
  EXPECT_EQ(r.dead, 2);
  EXPECT_EQ(r.first_bad, 8);
  // Tiles: rows 0..3 and 4..5 under one row of scales each; a tile is counted once.
  s.input = m.add("tiles", Elem::f32, 2, 2, bytes_of<float>({1.0F, 0.0F, 0.0F, 1.0F}));
  s.type.block = {4, 32};
  r = ask(s, m);
  EXPECT_EQ(r.dead, 2);
  EXPECT_EQ(r.first_bad, 1);
  s.type.block = {4, 16};
  Context context;
  EXPECT_FALSE(survey(s, m, context).ok());
}

TEST(Survey, RefusesWithoutReading) {
  Memory m;
  Context context;
  EXPECT_FALSE(survey({SurveyKind::floats, m.add("a", Elem::i32, 1, 1, Bytes(4))}, m, context).ok());
  Survey s{SurveyKind::floats, m.add("b", Elem::f32, 1, 4, Bytes(16))};
  s.input.view.dims[1] = 5;
  EXPECT_FALSE(survey(s, m, context).ok());
  std::atomic<bool> stop{true};
  context.cancelled = &stop;
  s.input.view.dims[1] = 4;
  EXPECT_EQ(survey(s, m, context).error().code, Errc::cancelled);
}

}  // namespace
}  // namespace qb
