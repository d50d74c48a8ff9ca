// Codes that GPTQ decides, against the algorithm as its paper writes it down (the inverse of the Hessian, updated after each column, in double) and against
// what it is for: outputs that lose less than by rounding.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "calib/algorithm.h"

namespace qb::calib {
namespace {

struct Case {
  Weight weight;
  std::vector<float> inputs;  // [tokens, k]
  int64_t tokens = 0;
};

// Inputs of which each is a mix of a few others: then there is something to make up for.
Case case_of(int64_t n, int64_t k, const ir::QuantType& type, Elem elem, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Case c{
      .weight = {.path = "w", .n = n, .k = k, .elem = elem, .numbers = {}, .recipe = recipe::find_recipe(type, recipe::Numerics::llm_compressor), .type = type},
      .inputs = {},
      .tokens = 4 * k};
  std::vector<float> w(static_cast<size_t>(n * k)), mix(static_cast<size_t>(k * 8));
  for (float& x : w) x = normal(random) / 16;
  for (float& x : mix) x = normal(random);
  c.weight.numbers.resize(w.size() * static_cast<size_t>(bits(elem)) / 8);
  narrow(w.data(), n * k, elem, c.weight.numbers.data());
  for (int64_t t = 0; t < c.tokens; ++t) {
    float from[8];
    for (float& x : from) x = normal(random);
    for (int64_t j = 0; j < k; ++j) {
      float x = normal(random) / 4;
      for (size_t i = 0; i < 8; ++i) x += from[i] * mix[static_cast<size_t>(j) * 8 + i];
      c.inputs.push_back(x);
    }
  }
  return c;
}

const Algorithm& find(std::string_view name) {
  for (const Algorithm* a : algorithms())
    if (a->name == name) return *a;
  std::abort();
}

std::vector<float> plain(const Weight& w) {
  std::vector<float> out(static_cast<size_t>(w.n * w.k));
  widen(w.numbers.data(), w.elem, w.n * w.k, out.data());
  return out;
}

Made solved(const Case& c, std::string_view algorithm, int threads, Isa isa) {
  host::ThreadPool pool(threads);
  const Tools tools{pool, isa};
  Statistics seen(c.weight.k, true, tools);
  seen.see(c.inputs.data(), c.tokens, c.weight.k);
  Result<std::vector<Made>> made = find(algorithm).solve({&c.weight, 1}, seen, tools);
  EXPECT_TRUE(made.ok());
  return made ? std::move(made->front()) : Made{};
}

std::vector<double> dequantized(const Weight& w, const Made& made) {
  const Elem elem = w.recipe->scale_elem(w.elem);
  const int64_t group = w.type.block.cols == 0 ? w.k : w.type.block.cols, groups = (w.k + group - 1) / group;
  std::vector<float> scales(static_cast<size_t>(w.n * groups));
  widen(made.scales.data(), elem, w.n * groups, scales.data());
  std::vector<double> out;
  for (int64_t r = 0; r < w.n; ++r)
    for (int64_t j = 0; j < w.k; ++j) {
      const auto g = static_cast<size_t>(r * groups + (made.order.empty() ? j / group : made.order[static_cast<size_t>(j)]));
      const double zero = made.zeros.empty() ? 0 : static_cast<double>(static_cast<int8_t>(made.zeros[g]));
      out.push_back((static_cast<double>(static_cast<int8_t>(made.codes[static_cast<size_t>(r * w.k + j)])) - zero) * static_cast<double>(scales[g]));
    }
  return out;
}

// The squares of what outputs lose, over all tokens.
double loss(const Case& c, const std::vector<double>& w) {
  const std::vector<float> was = plain(c.weight);
  const auto k = static_cast<size_t>(c.weight.k);
  double sum = 0;
  for (int64_t t = 0; t < c.tokens; ++t)
    for (size_t r = 0; r < static_cast<size_t>(c.weight.n); ++r) {
      double y = 0;
      for (size_t j = 0; j < k; ++j) y += (w[r * k + j] - static_cast<double>(was[r * k + j])) * static_cast<double>(c.inputs[static_cast<size_t>(t) * k + j]);
      sum += y * y;
    }
  return sum;
}

// One column after the other as they lie; the inverse loses the row and column of each that is done.
std::vector<int8_t> by_the_paper(const Case& c, const Made& scales_of) {
  const Weight& w = c.weight;
  const auto k = static_cast<size_t>(w.k);
  std::vector<double> h(k * k), inverse(k * k);
  for (int64_t t = 0; t < c.tokens; ++t)
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < k; ++j)
        h[i * k + j] += static_cast<double>(c.inputs[static_cast<size_t>(t) * k + i]) * static_cast<double>(c.inputs[static_cast<size_t>(t) * k + j]);
  double mean = 0;
  for (size_t i = 0; i < k; ++i) mean += h[i * k + i] / static_cast<double>(k);
  for (size_t i = 0; i < k; ++i) {
    h[i * k + i] += 0.01 * mean;
    inverse[i * k + i] = 1;
  }
  for (size_t i = 0; i < k; ++i) {  // Gauss and Jordan, of a positive definite matrix
    const double pivot = h[i * k + i];
    for (size_t j = 0; j < k; ++j) {
      h[i * k + j] /= pivot;
      inverse[i * k + j] /= pivot;
    }
    for (size_t r = 0; r < k; ++r) {
      const double f = h[r * k + i];
      if (r == i || f == 0) continue;
      for (size_t j = 0; j < k; ++j) {
        h[r * k + j] -= f * h[i * k + j];
        inverse[r * k + j] -= f * inverse[i * k + j];
      }
    }
  }
  const std::vector<float> was = plain(w);
  std::vector<double> x(was.begin(), was.end());
  std::vector<int8_t> codes(x.size());
  const auto group = static_cast<size_t>(w.type.block.cols == 0 ? w.k : w.type.block.cols);
  std::vector<float> scales(static_cast<size_t>(w.n) * (k / group));
  widen(scales_of.scales.data(), w.recipe->scale_elem(w.elem), static_cast<int64_t>(scales.size()), scales.data());
  const double low = -static_cast<double>(1 << (bits(w.type.code) - 1));
  for (size_t i = 0; i < k; ++i) {
    for (size_t r = 0; r < static_cast<size_t>(w.n); ++r) {
      const size_t g = r * (k / group) + i / group;
      const double scale = static_cast<double>(scales[g]), zero = scales_of.zeros.empty() ? 0 : static_cast<double>(static_cast<int8_t>(scales_of.zeros[g]));
      const double code = std::nearbyint(std::clamp(x[r * k + i] / scale + zero, low, -low - 1));
      codes[r * k + i] = static_cast<int8_t>(code);
      const double error = (x[r * k + i] - (code - zero) * scale) / inverse[i * k + i];
      for (size_t j = i; j < k; ++j) x[r * k + j] -= error * inverse[i * k + j];
    }
    const double pivot = inverse[i * k + i];
    for (size_t r = i + 1; r < k; ++r) {
      const double f = inverse[r * k + i] / pivot;
      for (size_t j = 0; j < k; ++j) inverse[r * k + j] -= f * inverse[i * k + j];
    }
  }
  return codes;
}

ir::QuantType type_of(const char* text) {
  return ir::parse_scheme(text)->weight;
}

TEST(Gptq, CodesAreThoseOfThePaper) {
  for (const char* text : {"int4_g32", "int4_g64_asym", "int8_channel", "int3_g64"}) {
    SCOPED_TRACE(text);
    const Case c = case_of(24, 192, type_of(text), Elem::f32, 7);
    const Made made = solved(c, "gptq_in_order", 2, Isa::generic);
    const std::vector<int8_t> wanted = by_the_paper(c, made);
    ASSERT_EQ(made.codes.size(), wanted.size());
    // A quotient that lies next to a tie is rounded otherwise in float32, and changes what comes behind it in its row.
    size_t rows = 0;
    for (int64_t r = 0; r < c.weight.n; ++r) {
      bool equal = true;
      for (int64_t j = 0; j < c.weight.k; ++j) {
        const auto at = static_cast<size_t>(r * c.weight.k + j);
        equal &= static_cast<int8_t>(made.codes[at]) == wanted[at];
      }
      rows += equal ? 1 : 0;
    }
    EXPECT_GE(rows, 20u);
  }
}

TEST(Gptq, OutputsLoseLessThanByRounding) {
  host::ThreadPool pool(1);
  for (const char* name : {"gptq", "gptq_in_order", "gptq_group_order"})
    for (const char* text : {"int4_g32", "int4_g64_asym", "int2_g32"}) {
      SCOPED_TRACE(std::string(name) + " " + text);
      for (const Elem elem : {Elem::bf16, Elem::f16, Elem::f32}) {
        const Case c = case_of(16, 128, type_of(text), elem, 3);
        const double rounded = loss(c, dequantized(c.weight, make(c.weight, c.weight.numbers.data(), 0, Isa::generic)));
        EXPECT_LT(loss(c, dequantized(c.weight, solved(c, name, 1, Isa::generic))), 0.6 * rounded);
      }
    }
}

TEST(Gptq, InputsThatHaveNothingToDoWithEachOtherAreRounded) {
  Case c = case_of(8, 64, type_of("int4_g32"), Elem::f32, 5);  // the recipe rounds quotients to the dtype of the model
  c.tokens = 64;
  c.inputs.assign(64 * 64, 0.0F);
  for (size_t i = 0; i < 64; ++i) c.inputs[i * 64 + i] = 1.0F + static_cast<float>(i % 5);
  EXPECT_EQ(solved(c, "gptq", 1, Isa::generic).codes, make(c.weight, c.weight.numbers.data(), 0, Isa::generic).codes);
}

TEST(Gptq, CodesDependOnNeitherThreadsNorInstructions) {
  const Case c = case_of(40, 320, type_of("int4_g64"), Elem::bf16, 11);
  const Made one = solved(c, "gptq", 1, Isa::generic);
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
    if ((isa == Isa::avx2 && !__builtin_cpu_supports("avx2")) || (isa == Isa::avx512 && !__builtin_cpu_supports("avx512vl"))) continue;
    EXPECT_EQ(solved(c, "gptq", 3, isa).codes, one.codes);
  }
}

TEST(Gptq, GroupsOfColumnsThatAreOfASize) {
  const Case c = case_of(8, 96, type_of("int4_g32"), Elem::bf16, 2);
  const Made made = solved(c, "gptq_group_order", 1, Isa::generic);
  ASSERT_EQ(made.order.size(), 96u);
  for (int32_t g = 0; g < 3; ++g) EXPECT_EQ(std::count(made.order.begin(), made.order.end(), g), 32);
}

TEST(Gptq, WhatIsNotFiniteIsAnError) {
  Case c = case_of(4, 32, type_of("int4_g32"), Elem::bf16, 1);
  c.inputs[5] = __builtin_inff();
  host::ThreadPool pool(1);
  const Tools tools{pool, Isa::generic};
  Statistics seen(32, true, tools);
  seen.see(c.inputs.data(), c.tokens, 32);
  EXPECT_FALSE(find("gptq").solve({&c.weight, 1}, seen, tools).ok());
}

TEST(Gptq, ColumnsWithoutInputsBecomeZero) {
  Case c = case_of(4, 64, type_of("int4_g32"), Elem::bf16, 1);
  for (size_t t = 0; t < static_cast<size_t>(c.tokens); ++t) c.inputs[t * 64 + 9] = 0;
  const Made made = solved(c, "gptq", 1, Isa::generic);
  for (size_t r = 0; r < 4; ++r) EXPECT_EQ(static_cast<int8_t>(made.codes[r * 64 + 9]), 0);
}

TEST(Algorithms, NamesAreCheckedWithNearOnes) {
  using recipe::Numerics;
  EXPECT_EQ(parse_algorithms("smoothquant+gptq", Numerics::llm_compressor)->size(), 2u);
  EXPECT_NE(parse_algorithms("gtpq", Numerics::llm_compressor).error().what.find("gptq"), std::string::npos);
  for (const char* wrong : {"", "gptq+", "gptq+smoothquant", "gptq+gptq", "awq+smoothquant", "smoothquant+awq+gptq"})
    EXPECT_FALSE(parse_algorithms(wrong, Numerics::llm_compressor).ok()) << wrong;
  EXPECT_EQ(parse_algorithms("awq+awq_clip", Numerics::modelopt)->size(), 2u);
}

}  // namespace
}  // namespace qb::calib
