#include "exec/execute.h"

#include <bit>
#include <cmath>
#include <thread>

#include "exec/ops.h"
#include "exec/test_support.h"
#include "recipe/recipe.h"

namespace qb {
namespace {

using namespace test;
using ir::Block;
using ir::QuantType;
using ir::ScaleForm;
using ir::ScaleValues;

// --- Ops against the scalar codecs -------------------------------------------------------------------------------------------------------------------------

float number(const Bytes& b, Elem e, int64_t i) {
  const auto at = static_cast<size_t>(i);
  switch (e) {
    case Elem::f32:
      return as<float>(b)[at];
    case Elem::bf16:
      return decode_bf16(as<uint16_t>(b)[at]);
    case Elem::f16:
      return decode_f16(as<uint16_t>(b)[at]);
    case Elem::e4m3:
      return decode_e4m3(std::to_integer<uint8_t>(b[at]));
    case Elem::e5m2:
      return decode_e5m2(std::to_integer<uint8_t>(b[at]));
    case Elem::e2m1:
      return decode_e2m1(static_cast<uint8_t>((std::to_integer<unsigned>(b[at / 2]) >> (4 * (at % 2))) & 15U));
    case Elem::i8:
      return static_cast<float>(std::to_integer<int8_t>(b[at]));
    default:
      return decode_e8m0(std::to_integer<uint8_t>(b[at]));
  }
}

bool same_bits(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

TEST(Recode, IsTheCodecForEveryNumber) {
  std::vector<uint16_t> all(65536);
  std::iota(all.begin(), all.end(), uint16_t{0});
  const Bytes sixteen = bytes_of(all);
  std::vector<float> floats;
  for (uint32_t i = 0; i < 1U << 16; ++i) {
    for (uint32_t low : {0x0000U, 0x0001U, 0x1000U, 0x2FFFU, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU}) floats.push_back(std::bit_cast<float>(i << 16 | low));
  }
  for (Elem from : {Elem::bf16, Elem::f16, Elem::f32}) {
    const Bytes src = from == Elem::f32 ? bytes_of(floats) : sixteen;
    const auto count = static_cast<int64_t>(src.size()) * 8 / bits(from);
    for (Elem to : {Elem::f32, Elem::bf16, Elem::f16}) {
      Bytes dst(static_cast<size_t>(count * bits(to) / 8) + 1, std::byte{0xA5});
      ops::recode(src.data(), from, dst.data(), to, count);
      ASSERT_EQ(dst.back(), std::byte{0xA5});
      const auto f = as<float>(from == Elem::f32 ? src : Bytes{});
      const auto half = as<uint16_t>(src);
      for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        const float x = from == Elem::f32 ? f[i] : from == Elem::bf16 ? decode_bf16(half[i]) : decode_f16(half[i]);
        if (to == Elem::f32) {
          float y;
          std::memcpy(&y, dst.data() + 4 * i, 4);
          ASSERT_TRUE(same_bits(x, y)) << i;
        } else {
          uint16_t y;
          std::memcpy(&y, dst.data() + 2 * i, 2);
          if (from != to) {
            ASSERT_EQ(y, to == Elem::bf16 ? encode_bf16(x) : encode_f16(x)) << i;
          } else {
            ASSERT_EQ(y, half[i]) << i;
          }
        }
      }
    }
  }
}

TEST(Recode, EightBitFormatsWiden) {
  Bytes src(256);
  for (size_t i = 0; i < 256; ++i) src[i] = static_cast<std::byte>(i);
  for (Elem from : {Elem::e4m3, Elem::e5m2, Elem::e8m0}) {
    Bytes dst(1024);
    ops::recode(src.data(), from, dst.data(), Elem::f32, 256);
    for (int64_t i = 0; i < 256; ++i) ASSERT_TRUE(same_bits(as<float>(dst)[static_cast<size_t>(i)], number(src, from, i))) << i;
  }
}

TEST(Rescale, IsOneRounding) {
  std::vector<uint16_t> all(65536);
  std::iota(all.begin(), all.end(), uint16_t{0});
  const Bytes src = bytes_of(all);
  for (Elem e : {Elem::bf16, Elem::f16}) {
    Bytes dst(src.size());
    ops::rescale(src.data(), e, dst.data(), 65536);
    const auto out = as<uint16_t>(dst);
    for (size_t i = 0; i < 65536; i += 7) {
      const float x = e == Elem::bf16 ? decode_bf16(all[i]) : decode_f16(all[i]);
      if (!std::isfinite(x) || x == 0) continue;
      // Of three neighbours, the result is the nearest to 1/x.
      const double exact = 1.0 / static_cast<double>(x);
      const auto value = [&](int step) {
        const auto code = static_cast<uint16_t>(out[i] + step);
        return static_cast<double>(e == Elem::bf16 ? decode_bf16(code) : decode_f16(code));
      };
      if (!std::isfinite(value(0)) || value(0) == 0) continue;
      const double error = std::fabs(value(0) - exact);
      if (std::isfinite(value(1))) {
        ASSERT_LE(error, std::fabs(value(1) - exact)) << i;
      }
      ASSERT_LE(error, std::fabs(value(-1) - exact)) << i;
    }
  }
  const Bytes f = bytes_of<float>({3.0F, -0.1F, 1e30F});
  Bytes dst(12);
  ops::rescale(f.data(), Elem::f32, dst.data(), 3);
  EXPECT_EQ(as<float>(dst), (std::vector<float>{1.0F / 3.0F, 1.0F / -0.1F, 1.0F / 1e30F}));
}

struct Case {
  QuantType type;
  Elem scale = Elem::f32, global = Elem::f32;
  bool has_global = false;
  ScaleForm scale_form = ScaleForm::multiply, global_form = ScaleForm::multiply;
};

int64_t grid(int64_t n, int32_t block) {
  return block == 0 ? 1 : (n + block - 1) / block;
}

void check_dequantize(const Case& c, int64_t n, int64_t k, uint32_t seed) {
  Memory m;
  const Elem code = c.type.code;
  const Block b = c.type.block;
  const int64_t sr = grid(n, b.rows), sc = grid(k, b.cols);
  const Bytes codes = random_bytes(static_cast<uint64_t>(n * k * bits(code) / 8), seed);
  Bytes scales = random_bytes(static_cast<uint64_t>(sr * sc * bits(c.scale) / 8), seed + 1);
  if (c.scale == Elem::f32) scales = bytes_of(random_floats(sr * sc, seed, 1e-4F, 3e-2F));
  const Bytes global = c.global == Elem::f32 ? bytes_of<float>({0.0123F}) : random_bytes(2, seed);
  prog::Program p;
  p.rows = n;
  p.row_multiple = 1;
  p.inputs = {m.add("w", code, n, k, codes), m.add("s", c.scale, sr, sc, scales, b.rows), m.add("g", c.global, 1, 1, global, 0)};
  p.ops = {prog::Dequantize{c.type, 0, 1, c.has_global ? 2 : -1, c.scale_form, c.global_form}};
  p.outputs = {{"w", Elem::f32, {n, k}, 3}};
  Context context;
  const std::vector<Bytes> whole = run_whole(p, m, context);
  const auto out = as<float>(whole[0]);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      const int64_t s = (b.rows == 0 ? 0 : i / b.rows) * sc + (b.cols == 0 ? 0 : j / b.cols);
      // Long double holds every product here exactly; one division in it, then one rounding, is innocuous as in double.
      const long double x = number(codes, code, i * k + j), y = number(scales, c.scale == Elem::u8 ? Elem::e8m0 : c.scale, s);
      const long double g = c.has_global ? number(global, c.global, 0) : 1.0F;
      long double over = x, under = 1;
      (c.scale_form == ScaleForm::divide ? under : over) *= y;
      (c.global_form == ScaleForm::divide ? under : over) *= g;
      const auto want = static_cast<float>(over / under);
      ASSERT_TRUE(same_bits(out[static_cast<size_t>(i * k + j)], want)) << i << "," << j << ": " << out[static_cast<size_t>(i * k + j)] << " != " << want;
    }
  }
  for (int64_t rows : {int64_t{1}, int64_t{3}, n}) EXPECT_EQ(run_rows(p, rows, rows == 3 ? 1 : 0, m, context), whole) << rows;
}

TEST(Dequantize, IsTheExactProductRoundedOnce) {
  const QuantType nvfp4{Elem::e2m1, ScaleValues::e4m3, {1, 16}}, mxfp4{Elem::e2m1, ScaleValues::e8m0, {1, 32}}, odd{Elem::e2m1, ScaleValues::any, {1, 5}};
  const auto fp8 = [](Block b) { return QuantType{Elem::e4m3, ScaleValues::any, b}; };
  const std::vector<Case> cases = {
      {nvfp4, Elem::e4m3, Elem::f32, true},
      {nvfp4, Elem::e4m3, Elem::f32, true, ScaleForm::multiply, ScaleForm::divide},
      {nvfp4, Elem::e4m3, Elem::bf16, true, ScaleForm::divide, ScaleForm::divide},
      {nvfp4, Elem::e4m3, Elem::f32, true, ScaleForm::divide, ScaleForm::multiply},
      {nvfp4, Elem::e4m3},
      {mxfp4, Elem::u8, Elem::f32, false, ScaleForm::exponent},
      {mxfp4, Elem::e8m0},
      {odd, Elem::f32},
      {odd, Elem::bf16},
      {fp8({0, 0}), Elem::f32},
      {fp8({0, 0}), Elem::f32, Elem::f32, false, ScaleForm::divide},
      {fp8({1, 0}), Elem::bf16},
      {fp8({1, 0}), Elem::f16},
      {fp8({1, 32}), Elem::f32},
      {fp8({4, 16}), Elem::f32},
      {fp8({4, 16}), Elem::bf16},
      {fp8({2, 0}), Elem::f32},
      {fp8({0, 8}), Elem::f32},
      {{Elem::e4m3, ScaleValues::e8m0, {1, 32}}, Elem::u8, Elem::f32, false, ScaleForm::exponent},
      {{Elem::e4m3, ScaleValues::e4m3, {1, 32}}, Elem::e4m3, Elem::f32, true},
      {{Elem::e5m2, ScaleValues::any, {1, 0}}, Elem::f32},
      {{Elem::i8, ScaleValues::any, {1, 0}}, Elem::f32},
      {{Elem::i8, ScaleValues::any, {0, 0}}, Elem::f32, Elem::f32, false, ScaleForm::divide},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    check_dequantize(cases[i], 7, 38, static_cast<uint32_t>(100 * i));
    check_dequantize(cases[i], 1, 2, static_cast<uint32_t>(100 * i + 50));
    check_dequantize(cases[i], 5, 64, static_cast<uint32_t>(100 * i + 70));
  }
}

TEST(Fold, AddsTheFactorsAndScalesTheColumns) {
  constexpr int64_t n = 5, k = 6, r = 2;
  const auto w = random_floats(n * k, 1, -1.0F, 1.0F), a = random_floats(r * k, 2, -1.0F, 1.0F), b = random_floats(n * r, 3, -1.0F, 1.0F),
             s = random_floats(k, 4, 0.5F, 2.0F);
  for (const bool factors : {false, true}) {
    for (const bool scales : {false, true}) {
      Memory m;
      prog::Program p;
      p.rows = n;
      p.inputs = {m.add("w", Elem::f32, n, k, bytes_of(w)), m.add("a", Elem::f32, 1, r * k, bytes_of(a), 0), m.add("b", Elem::f32, n, r, bytes_of(b)),
                  m.add("s", Elem::f32, 1, k, bytes_of(s), 0)};
      p.ops.emplace_back(prog::Fold{.src = 0, .a = factors ? 1 : -1, .b = factors ? 2 : -1, .prescale = scales ? 3 : -1});
      p.outputs = {{"out", Elem::f32, {n, k}, 4}};
      Context context;
      const std::vector<Bytes> whole = run_whole(p, m, context);
      const auto out = as<float>(whole[0]);
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < k; ++j) {
          double want = static_cast<double>(w[i * k + j]);
          for (size_t t = 0; factors && t < r; ++t) want += static_cast<double>(b[i * r + t]) * static_cast<double>(a[t * k + j]);
          EXPECT_EQ(out[i * k + j], static_cast<float>(want * (scales ? static_cast<double>(s[j]) : 1.0)));
        }
      }
      EXPECT_EQ(run_rows(p, 2, 0, m, context), whole);
    }
  }
}

TEST(Dequantize, KeepsTheSignOfZeroAndNan) {
  Memory m;
  prog::Program p;
  p.inputs = {m.add("w", Elem::e4m3, 1, 4, {std::byte{0x00}, std::byte{0x80}, std::byte{0x7F}, std::byte{0xFF}}),
              m.add("s", Elem::f32, 1, 1, bytes_of<float>({0.5F}), 0)};
  p.ops = {prog::Dequantize{{Elem::e4m3, ScaleValues::any, {0, 0}}, 0, 1}, prog::Recode{2, Elem::bf16}};
  p.outputs = {{"w", Elem::bf16, {4}, 3}};
  Context context;
  const auto out = as<uint16_t>(run_whole(p, m, context)[0]);
  EXPECT_EQ(out[0], 0x0000);
  EXPECT_EQ(out[1], 0x8000);
  EXPECT_TRUE(std::isnan(decode_bf16(out[2])) && std::isnan(decode_bf16(out[3])));
}

// --- Views -------------------------------------------------------------------------------------------------------------------------------------------------

// The elements of any view, one bit at a time.
Bytes gathered(const Bytes& raw, const ir::View& v, int width) {
  Bytes out(static_cast<size_t>(v.dims[0] * v.dims[1] * width / 8), std::byte{0});
  int64_t to = 0;
  for (int64_t i = 0; i < v.dims[0]; ++i) {
    for (int64_t j = 0; j < v.dims[1]; ++j) {
      for (int b = 0; b < width; ++b, ++to) {
        const int64_t from = v.offset + i * v.stride[0] + j * v.stride[1] + b;
        const unsigned bit = (std::to_integer<unsigned>(raw[static_cast<size_t>(from / 8)]) >> (from % 8)) & 1U;
        out[static_cast<size_t>(to / 8)] |= static_cast<std::byte>(bit << (to % 8));
      }
    }
  }
  return out;
}

TEST(Views, AnyStrideGivesTheSameMatrix) {
  struct V {
    Elem elem;
    ir::View view;
  };
  const std::vector<V> views = {
      {Elem::bf16, {{9, 10}, {160, 16}, 0}},    // dense
      {Elem::bf16, {{9, 10}, {160, 16}, 48}},   // dense, from the middle
      {Elem::bf16, {{9, 10}, {320, 16}, 160}},  // every other row: interleaved gate and up
      {Elem::bf16, {{9, 10}, {16, 144}, 0}},    // transposed
      {Elem::bf16, {{9, 10}, {16, 160}, 32}},   // transposed, a slice
      {Elem::bf16, {{9, 10}, {640, 64}, 16}},   // every fourth element
      {Elem::f32, {{9, 10}, {32, 288}, 0}},    {Elem::e2m1, {{9, 10}, {40, 4}, 0}}, {Elem::e2m1, {{9, 10}, {44, 4}, 4}},  // rows that start inside a byte
      {Elem::e2m1, {{9, 10}, {4, 36}, 4}},                                                                                // transposed nibbles
      {Elem::e2m1, {{9, 10}, {80, 8}, 0}},                                                                                // the low nibbles of bytes
      {Elem::e4m3, {{9, 10}, {0, 8}, 0}},                                                                                 // one row for all
      {Elem::e4m3, {{9, 10}, {8, 0}, 8}},                                                                                 // one column for all
      {Elem::e2m3, {{8, 16}, {99, 6}, 5}},                                                                                // six bits across bytes
  };
  for (size_t i = 0; i < views.size(); ++i) {
    SCOPED_TRACE(i);
    const Bytes raw = random_bytes(1000, static_cast<uint32_t>(i));
    Memory m;
    m.add("before", Elem::u8, 1, 13, random_bytes(13, 1));
    prog::Program p;
    p.inputs = {m.add("w", Elem::u8, 1, 1000, raw)};
    p.inputs[0].elem = views[i].elem;
    p.inputs[0].view = views[i].view;
    p.rows = views[i].view.dims[0];
    p.ops = {prog::Copy{0}};
    p.outputs = {{"w", Elem::u8, {p.rows * views[i].view.dims[1] * bits(views[i].elem) / 8}, 1}};
    Context context;
    const Bytes want = gathered(raw, views[i].view, bits(views[i].elem));
    EXPECT_EQ(run_whole(p, m, context)[0], want);
    for (int64_t rows : {1, 2, 5}) EXPECT_EQ(run_rows(p, rows, 3, m, context)[0], want) << rows;
  }
}

// --- Quantize, blocks, budgets -----------------------------------------------------------------------------------------------------------------------------

struct Made {
  prog::Program program;
  Bytes weights;
};

Made quantize(Memory& m, const recipe::Recipe& r, const QuantType& type, int64_t n, int64_t k, uint32_t seed) {
  Made made;
  made.weights = bf16_weights(n * k, seed);
  prog::Program& p = made.program;
  p.rows = n;
  p.row_multiple = recipe::row_multiple(r, type);
  p.inputs = {m.add("w", Elem::bf16, n, k, made.weights)};
  if (r.needs_amax) p.reductions = {{prog::ReduceKind::absmax, {p.inputs[0]}}};
  p.ops = {prog::Quantize{std::string(r.name), type, 0, r.needs_amax ? 0 : -1}};
  const Elem scale = r.scale_elem(Elem::bf16);
  p.outputs = {{"w", type.code, {n, k}, 1}, {"w_scale", scale, {grid(n, type.block.rows), grid(k, type.block.cols)}, 2}};
  if (type.two_level()) p.outputs.push_back({"w_scale_2", Elem::f32, {}, 3});
  return made;
}

// What a program makes that walks the columns is what one makes that walks the rows, the other way round.
TEST(Turn, ColumnsAreQuantizedAsRowsAre) {
  const int64_t n = 40, k = 96;
  for (const int32_t group : {32, 0}) {
    const QuantType type{Elem::int4, ScaleValues::any, {1, group}, ir::Zero::code};
    const int64_t groups = group == 0 ? 1 : k / group;
    Memory m;
    prog::Program by_rows;
    by_rows.rows = n;
    by_rows.inputs = {m.add("w", Elem::bf16, n, k, bf16_weights(n * k, 5))};
    by_rows.ops = {prog::Quantize{"int_rows_asym.llm_compressor", type, 0}};
    by_rows.outputs = {{"w", Elem::i8, {n, k}, 1}, {"w_scale", Elem::bf16, {n, groups}, 2}, {"w_zero", Elem::i8, {n, groups}, 3}};
    prog::Program by_columns = by_rows;
    by_columns.rows = k;
    by_columns.row_multiple = group == 0 ? k : 32;
    by_columns.inputs[0].view = {{k, n}, {16, k * 16}, 0};
    by_columns.ops = {prog::Turn{0}, prog::Quantize{"int_rows_asym.llm_compressor", type, 1}, prog::Turn{2}, prog::Turn{3}, prog::Turn{4}};
    by_columns.outputs = {{"w", Elem::i8, {k, n}, 5}, {"w_scale", Elem::bf16, {groups, n}, 6}, {"w_zero", Elem::i8, {groups, n}, 7}};
    Context context;
    const std::vector<Bytes> want = run_whole(by_rows, m, context), got = run_whole(by_columns, m, context);
    for (size_t o = 0; o < want.size(); ++o) {
      const int bytes = o == 1 ? 2 : 1;
      Bytes turned(want[o].size());
      ops::turn(want[o].data(), n, o == 0 ? k : groups, bytes, turned.data());
      EXPECT_EQ(got[o], turned) << "output " << o << " in groups of " << group;
    }
    for (const int64_t rows : {int64_t{32}, int64_t{64}, k}) {
      if (rows % by_columns.row_multiple == 0) {
        EXPECT_EQ(run_rows(by_columns, rows, 1, m, context), got) << rows;
      }
    }
  }
}

std::vector<QuantType> types() {
  return {{Elem::e4m3, ScaleValues::any, {0, 0}},   {Elem::e4m3, ScaleValues::any, {1, 0}},   {Elem::e4m3, ScaleValues::any, {128, 128}},
          {Elem::e4m3, ScaleValues::any, {1, 128}}, {Elem::e2m1, ScaleValues::e4m3, {1, 16}}, {Elem::i8, ScaleValues::any, {1, 0}}};
}

TEST(Quantize, AnyBlockHeightMakesTheSameBytes) {
  int made = 0;
  for (const QuantType& type : types()) {
    for (recipe::Numerics numerics : {recipe::Numerics::modelopt, recipe::Numerics::llm_compressor}) {
      const recipe::Recipe* r = recipe::find_recipe(type, numerics);
      if (r == nullptr) continue;
      SCOPED_TRACE(r->name);
      Memory m;
      const auto [p, weights] = quantize(m, *r, type, 300, 256, 7);
      Context context;
      const auto whole = run_whole(p, m, context);
      // The recipe itself, without the executor.
      std::vector<Bytes> direct;
      for (const prog::Output& o : p.outputs) direct.emplace_back(prog::output_bytes(o));
      const float amax = recipe::absmax(weights.data(), Elem::bf16, 300 * 256, Isa::generic);
      r->run({weights.data(), Elem::bf16, 300, 256, 300, r->needs_amax ? amax : 0.0F, type, direct[0].data(), direct[1].data(),
              type.two_level() ? direct[2].data() : nullptr});
      EXPECT_EQ(whole, direct);
      const int64_t step = p.row_multiple;
      for (int64_t rows : {step, 2 * step, (300 + step - 1) / step * step}) EXPECT_EQ(run_rows(p, rows, rows == step ? 1 : 0, m, context), whole) << rows;
      Context small;
      small.limits.memory_budget = 2 * working_set(p, step) + 4096;
      EXPECT_EQ(run_whole(p, m, small), whole);
      ++made;
    }
  }
  EXPECT_GT(made, 3);
}

TEST(Budget, WorkingSetAndRowsWithinAgree) {
  Memory m;
  prog::Program p;
  p.rows = 1000;
  p.row_multiple = 4;
  p.inputs = {m.add("w", Elem::e4m3, 1000, 96, random_bytes(96000, 1)), m.add("s", Elem::f32, 250, 1, bytes_of(random_floats(250, 1, 0.1F, 1.0F)), 4)};
  p.ops = {prog::Dequantize{{Elem::e4m3, ScaleValues::any, {4, 0}}, 0, 1}, prog::Recode{2, Elem::bf16}};
  p.outputs = {{"w", Elem::bf16, {1000, 96}, 3}};
  for (uint64_t bytes : {uint64_t{100}, uint64_t{5000}, uint64_t{50000}, uint64_t{10000000}}) {
    const int64_t rows = rows_within(p, bytes);
    EXPECT_TRUE(rows % 4 == 0 || rows == 1000) << rows;
    if (rows > 0) {
      EXPECT_LE(working_set(p, rows) + output_slice(p, 0, {0, rows}).bytes, bytes);
    }
    if (rows < 1000) {
      EXPECT_GT(working_set(p, rows + 4) + output_slice(p, 0, {0, rows + 4}).bytes, bytes);
    }
  }
  EXPECT_EQ(rows_within(p, 10000000), 1000);
  Context context;
  context.limits.memory_budget = 500;
  Bytes out(192000);
  auto r = execute(p, m, out, context);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, Errc::out_of_memory);
  EXPECT_NE(r.error().what.find("'w'"), std::string::npos);
  EXPECT_NE(r.error().what.find("500 bytes"), std::string::npos);
}

TEST(Execute, EmptyAndScalarTensors) {
  Memory m;
  prog::Program p;
  p.rows = 0;
  p.inputs = {m.add("w", Elem::bf16, 0, 7, {})};
  p.ops = {prog::Copy{0}};
  p.outputs = {{"w", Elem::bf16, {0, 7}, 1}};
  Context context;
  EXPECT_EQ(run_whole(p, m, context)[0].size(), 0u);

  prog::Program q;
  q.rows = 3;
  q.inputs = {m.add("v", Elem::bf16, 3, 4, random_bytes(24, 1)), m.add("s", Elem::f32, 1, 1, bytes_of<float>({4.0F}), 0)};
  q.ops = {prog::Rescale{1}, prog::Literal{Elem::f32, std::string("\0\0\x80\x3f", 4)}};
  q.outputs = {{"v", Elem::bf16, {3, 4}, 0}, {"s", Elem::f32, {}, 2}, {"one", Elem::f32, {1}, 3}, {"again", Elem::u8, {24}, 0}};
  const auto whole = run_whole(q, m, context);
  EXPECT_EQ(as<float>(whole[1])[0], 0.25F);
  EXPECT_EQ(as<float>(whole[2])[0], 1.0F);
  EXPECT_EQ(whole[0], whole[3]);
  EXPECT_EQ(run_rows(q, 1, 1, m, context), whole);
}

TEST(Execute, RefusesWhatIsNotThere) {
  Memory m;
  prog::Program p;
  p.inputs = {m.add("w", Elem::bf16, 1, 16, random_bytes(32, 1))};
  p.ops = {prog::Quantize{"no_such_recipe", {Elem::e4m3, ScaleValues::any, {1, 0}}, 0}};
  p.outputs = {{"w", Elem::e4m3, {1, 16}, 1}, {"s", Elem::f32, {1}, 2}};
  Context context;
  Bytes out(20);
  auto r = execute(p, m, out, context);
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.error().what.find("no_such_recipe"), std::string::npos);
  p.ops = {prog::Copy{0}};
  p.outputs = {{"w", Elem::bf16, {16}, 1}};
  EXPECT_FALSE(execute(p, m, out, context).ok());  // 32 bytes into 20
  out.resize(32);
  std::atomic<bool> stop{true};
  context.cancelled = &stop;
  r = execute(p, m, out, context);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, Errc::cancelled);
}

// --- Reductions --------------------------------------------------------------------------------------------------------------------------------------------

TEST(Reduce, IsTakenOnceByAllThreadsTogether) {
  Memory m;
  const Bytes a = bf16_weights(3 << 20, 1), b = bf16_weights(1001, 2);
  prog::Reduction r{prog::ReduceKind::absmax, {m.add("a", Elem::bf16, 3 << 10, 1 << 10, a), m.add("b", Elem::bf16, 7, 143, b)}};
  Context context;
  context.limits.threads = 7;
  context.limits.memory_budget = 7 * 4 * 100'000;
  const float want = std::max(recipe::absmax(a.data(), Elem::bf16, 3 << 20, Isa::generic), recipe::absmax(b.data(), Elem::bf16, 1001, Isa::generic));
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 7; ++t) {
    threads.emplace_back([&] {
      auto x = context.reduce(r, m);
      if (x.ok() && *x == want) right.fetch_add(1);
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(right.load(), 7);
  EXPECT_EQ(m.bytes_read.load(), a.size() + b.size());
  prog::Reduction renamed = r;
  renamed.over[0].tensor = "another name";
  EXPECT_TRUE(context.reduce(renamed, m).ok());
  EXPECT_EQ(m.bytes_read.load(), a.size() + b.size());
  // Transposed: the same numbers in another order.
  prog::Reduction turned{prog::ReduceKind::absmax, {r.over[0]}};
  turned.over[0].view = {{1 << 10, 3 << 10}, {16, 16 << 10}, 0};
  auto x = context.reduce(turned, m);
  ASSERT_TRUE(x.ok()) << x.error().what;
  EXPECT_EQ(*x, recipe::absmax(a.data(), Elem::bf16, 3 << 20, Isa::generic));
}

TEST(Reduce, NamesTheTensorThatHoldsANan) {
  Memory m;
  prog::Reduction r{prog::ReduceKind::absmax,
                    {m.add("sound", Elem::f32, 1, 2, bytes_of<float>({1, 2})), m.add("broken", Elem::f32, 1, 2, bytes_of<float>({1, NAN}))}};
  Context context;
  for (int again = 0; again < 2; ++again) {
    auto x = context.reduce(r, m);
    ASSERT_FALSE(x.ok());
    EXPECT_NE(x.error().what.find("'broken'"), std::string::npos) << x.error().what;
  }
}

}  // namespace
}  // namespace qb
