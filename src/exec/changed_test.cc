// Inputs that are changed while they are read, against each number made one by one and rounded by looking for the nearest.
#include "exec/changed.h"

#include <cmath>

#include "exec/test_support.h"

namespace qb {
namespace {

using namespace test;

// The nearest of all E4M3 numbers, of two the even one.
float nearest_e4m3(double y) {
  int best = 0;
  for (int code = 0; code < 0x7F; ++code) {
    const double d = std::fabs(static_cast<double>(decode_e4m3(static_cast<uint8_t>(code))) - std::fabs(y));
    const double least = std::fabs(static_cast<double>(decode_e4m3(static_cast<uint8_t>(best))) - std::fabs(y));
    if (d < least || (d == least && code % 2 == 0)) best = code;
  }
  return std::copysign(decode_e4m3(static_cast<uint8_t>(best)), static_cast<float>(y));
}

TEST(Changed, IsRoundedOnce) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> exponent(-12, 10);
  for (int i = 0; i < 20000; ++i) {
    double y = std::exp2(exponent(random));
    // Halfway between two numbers, or so little beside it that float32 does not tell.
    if (i % 2 == 0) y = (static_cast<double>(nearest_e4m3(y)) + static_cast<double>(decode_e4m3(static_cast<uint8_t>(random() % 0x7F)))) / 2;
    if (i % 4 == 0) y *= 1 + 0x1p-40 * (i % 8 == 0 ? 1 : -1);
    std::byte code[4];
    ops::store_rounded(code, Elem::e4m3, 0, y);
    ASSERT_EQ(ops::number_at(code, Elem::e4m3, 0), nearest_e4m3(y)) << y;
    ops::store_rounded(code, Elem::bf16, 0, y);
    const auto near = static_cast<double>(ops::number_at(code, Elem::bf16, 0));
    ASSERT_LE(std::fabs(near - y), y == 0 ? 0 : std::ldexp(1.0, std::ilogb(y) - 8)) << y;
  }
  EXPECT_TRUE(std::isinf(ops::to_odd(1e300)));
  EXPECT_TRUE(std::isnan(ops::to_odd(NAN)));
  EXPECT_EQ(ops::to_odd(-1e-300), -0x1p-149F);
}

prog::Program widened(prog::Input in) {
  prog::Program p;
  p.rows = in.view.dims[0];
  p.outputs.push_back({.name = "out", .dtype = Elem::f32, .shape = {in.view.dims[0], in.view.dims[1]}, .value = 1});
  p.inputs.push_back(std::move(in));
  p.ops.emplace_back(prog::Recode{0, Elem::f32});
  return p;
}

TEST(Changed, RowsAndColumnsInBlocksOfAnyHeight) {
  constexpr int64_t n = 12, k = 6;
  Memory m;
  const Bytes stored = bf16_weights(n * k, 3), of_cols = bf16_weights(k, 4);
  const std::vector<float> of_rows = random_floats(n, 5, 0.5F, 2);
  prog::Input in = m.add("w", Elem::bf16, n, k, stored);
  in.times = 0.75;
  in.plus = 1;
  in.by = {m.add("rows", Elem::f32, n, 1, bytes_of(of_rows)), m.add("cols", Elem::bf16, 1, k, of_cols, 0)};
  // Rows of pieces: rows 4..7 have the factors of rows 0..3 of the tensor, and so on.
  in.by[0].view.piece = 4;
  in.by[0].view.next_piece = 2 * 4 * 32;
  in.by[0].view.dims[0] = n;
  in.by[0].bytes = 0;
  Context context;
  EXPECT_FALSE(prog::type_check(widened(in)).ok());  // beyond the tensor
  in.by[0] = m.add("more rows", Elem::f32, n, 1, bytes_of(random_floats(2 * n, 6, 0.5F, 2)));
  in.by[0].view.piece = 4;
  in.by[0].view.next_piece = 2 * 4 * 32;
  const std::vector<float> factors = random_floats(2 * n, 6, 0.5F, 2);
  std::vector<float> want;
  const auto w = as<uint16_t>(stored), c = as<uint16_t>(of_cols);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) {
      const double x = static_cast<double>(decode_bf16(w[static_cast<size_t>(i * k + j)])) + 1;
      const double y =
          x * 0.75 * static_cast<double>(factors[static_cast<size_t>(i / 4 * 8 + i % 4)]) * static_cast<double>(decode_bf16(c[static_cast<size_t>(j)]));
      want.push_back(round_bf16(ops::to_odd(y - 1)));
    }
  const prog::Program p = widened(in);
  EXPECT_EQ(as<float>(run_whole(p, m, context)[0]), want);
  for (const int64_t rows : {1, 5, 12}) EXPECT_EQ(as<float>(run_rows(p, rows, 1, m, context)[0]), want) << rows;
  EXPECT_NE(prog::to_text(p).find("times 0.75"), std::string::npos);
  // Codes are not multiplied, nor are factors changed themselves.
  prog::Input wrong = m.add("codes", Elem::e2m1, 4, 4, Bytes(8));
  wrong.times = 2;
  EXPECT_FALSE(prog::type_check(widened(wrong)).ok());
  wrong = in;
  wrong.by[0].times = 2;
  EXPECT_FALSE(prog::type_check(widened(wrong)).ok());
}

TEST(Changed, CopiesAreChangedToo) {
  Memory m;
  Bytes all;
  for (int i = 0; i < 0x7F; ++i) all.push_back(static_cast<std::byte>(i));
  prog::Program p;
  p.rows = 1;
  p.inputs.push_back(m.add("scale", Elem::e4m3, 1, 0x7F, all));
  p.inputs[0].times = 0.3;
  p.ops.emplace_back(prog::Copy{0});
  p.outputs.push_back({.name = "out", .dtype = Elem::e4m3, .shape = {1, 0x7F}, .value = 1});
  Context context;
  const Bytes out = run_whole(p, m, context)[0];
  for (size_t i = 0; i < all.size(); ++i)
    EXPECT_EQ(decode_e4m3(std::to_integer<uint8_t>(out[i])), nearest_e4m3(0.3 * static_cast<double>(decode_e4m3(static_cast<uint8_t>(i))))) << i;
}

}  // namespace
}  // namespace qb
