// Kernels on integers: the reference against the formulas written out in double and float32 (inputs.h), the others' sums against integers.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "exec/ops.h"
#include "kernel/emulated.h"
#include "kernel/inputs.h"

namespace qb::kernel {
namespace {

const Kernel& reference() {
  for (const Kernel* k : kernels())
    if (k->name == "linear_ref") return *k;
  return *kernels().front();
}

// Whether the kernel adds up integers (linear_WEIGHTS_int8_ISA); the others multiply floats.
bool adds_integers(const Kernel& k) {
  return k.name.find("_int8_", std::string_view("linear_").size()) != k.name.npos;
}
bool runs_here(const Kernel& k) {
  return host::covers(host::this_cpu().features, k.needs);
}

Problem problem(std::string_view scheme, int64_t m, int64_t n, int64_t k) {
  auto s = ir::parse_scheme(scheme);
  EXPECT_TRUE(s.ok()) << scheme;
  return {.m = m, .n = n, .k = k, .scheme = *s};
}

std::vector<float> run(const Problem& p, const Weight& w, const std::vector<float>& x, const Kernel& kernel = reference()) {
  const Verdict v = kernel.accepts(p);
  EXPECT_TRUE(v.ok) << v.why;
  std::vector<float> y(static_cast<size_t>(p.m * p.n));
  std::vector<std::byte> workspace(kernel.workspace_bytes(p));
  const RunArgs a{.problem = &p, .weight = &w, .x = x.data(), .y = y.data(), .n_begin = 0, .n_end = p.n, .workspace = workspace.data()};
  kernel.prepare(a, 0, p.m);
  kernel.run(a);
  return y;
}

TEST(Integers, WeightsWithZeroPointsAndAnOrder) {
  constexpr int64_t m = 9, n = 5, k = 40, g = 16, groups = 3;
  std::mt19937 random(5);
  std::vector<int8_t> codes(n * k), zeros(n * groups);
  std::vector<float> scales(n * groups), x(m * k);
  std::vector<int32_t> order(k);
  for (int8_t& c : codes) c = static_cast<int8_t>(static_cast<int>(random() % 16) - 8);
  for (int8_t& z : zeros) z = static_cast<int8_t>(static_cast<int>(random() % 16) - 8);
  for (float& s : scales) s = 0.001F * static_cast<float>(random() % 1000 + 1);
  for (float& v : x) v = static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 256;
  for (int32_t& o : order) o = static_cast<int32_t>(random() % groups);
  for (const bool asymmetric : {false, true}) {
    for (const bool ordered : {false, true}) {
      Problem p = problem(std::string("int4_g16") + (asymmetric ? "_asym" : "") + (ordered ? "+actorder" : ""), m, n, k);
      p.inputs = Inputs::f32;
      Weight w{.codes = reinterpret_cast<const std::byte*>(codes.data()), .scales = reinterpret_cast<const std::byte*>(scales.data())};
      if (asymmetric) w.zeros = reinterpret_cast<const std::byte*>(zeros.data());
      if (ordered) w.order = order.data();
      const std::vector<float> y = run(p, w, x);
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t r = 0; r < n; ++r) {
          double sum = 0, size = 0;
          for (int64_t j = 0; j < k; ++j) {
            const int64_t at = r * groups + (ordered ? order[static_cast<size_t>(j)] : j / g);
            const int number = codes[static_cast<size_t>(r * k + j)] - (asymmetric ? zeros[static_cast<size_t>(at)] : 0);
            const double term =
                static_cast<double>(x[static_cast<size_t>(i * k + j)]) * static_cast<double>(static_cast<float>(number) * scales[static_cast<size_t>(at)]);
            sum += term;
            size += std::abs(term);
          }
          EXPECT_LE(std::abs(static_cast<double>(y[static_cast<size_t>(i * n + r)]) - sum), (k + 8) * 0x1p-24 * size) << i << " " << r;
        }
      }
    }
  }
}

// One output that takes one input each: y is the quantized activation.
std::vector<float> quantized(std::string_view activation, const std::vector<float>& x, int64_t m, float scale = 0, int zero = 0) {
  const auto k = static_cast<int64_t>(x.size()) / m;
  std::vector<int8_t> codes(static_cast<size_t>(k * k));
  std::vector<float> scales(static_cast<size_t>(k), 1.0F);
  for (int64_t j = 0; j < k; ++j) codes[static_cast<size_t>(j * k + j)] = 1;
  Weight w{.codes = reinterpret_cast<const std::byte*>(codes.data()), .scales = reinterpret_cast<const std::byte*>(scales.data())};
  w.input_scale = scale;
  w.input_zero = zero;
  return run(problem("int8_channel:" + std::string(activation), m, k, k), w, x);
}

TEST(Integers, Activations) {
  const std::vector<float> x{1.27F, -0.5F, 0.02F, 0, 254, -253, 1, 3};
  EXPECT_EQ(quantized("int8_token", x, 2), (std::vector<float>{127 * (1.27F / 127), -50 * (1.27F / 127), 2 * (1.27F / 127), 0, 254, -252, 0, 4}));
  EXPECT_EQ(quantized("int4_token", {7, -7, 2.5F, 3.5F}, 1), (std::vector<float>{7, -7, 2, 4}));
  EXPECT_EQ(quantized("int8_tensor_dyn", {127, 1.5F, 2.5F, 0}, 2), (std::vector<float>{127, 2, 2, 0}));
  EXPECT_EQ(quantized("int8_g2", {127, 1.5F, 254, 3}, 1), (std::vector<float>{127, 2, 254, 4}));
  EXPECT_EQ(quantized("int8_tensor_static", {300, -300, 1, 5}, 1, 2.0F), (std::vector<float>{254, -256, 0, 4}));
  EXPECT_EQ(quantized("int8_tensor_asym_static", {300, -300, 1, 5}, 1, 2.0F, -100), (std::vector<float>{300, -56, 0, 4}));
  // min -1, max 254: a step of 1 and a zero point of -127.
  EXPECT_EQ(quantized("int8_token_asym", {-1, 254, 100.25F, 0}, 1), (std::vector<float>{-1, 254, 100, 0}));
  for (const char* kind : {"int8_token", "int8_token_asym", "int8_tensor_dyn"}) {
    EXPECT_EQ(quantized(kind, {0, 0, 0, 0}, 1), (std::vector<float>{0, 0, 0, 0})) << kind;
    const float y = quantized(kind, {1, std::numeric_limits<float>::quiet_NaN(), 2, 3}, 1)[0];
    EXPECT_TRUE(std::isnan(y)) << kind;
  }
}

// Kernels that multiply integers give the sum itself, scaled in double and rounded once.
TEST(Integers, SumsAreExactUpToTheirLastBit) {
  std::mt19937 random(11);
  for (const Kernel* kernel : kernels_and_emulated()) {
    if (!runs_here(*kernel) || !adds_integers(*kernel)) continue;
    for (const auto& [text, k] : {std::pair{"int8_channel:int8_token", 1000}, {"int8_channel:int8_token", 4097}, {"int4_channel:int8_token", 1001}}) {
      for (const int64_t m : {1, 3, 8, 11}) {
        constexpr int64_t n = 40;
        const Problem p = problem(text, m, n, k);
        if (!kernel->accepts(p).ok) continue;
        const int width = bits(p.scheme.weight.code);
        std::vector<int8_t> rows(static_cast<size_t>(n * k)), quantized(static_cast<size_t>(m * k));
        for (int8_t& c : rows) c = static_cast<int8_t>(static_cast<int>(random() % (1U << width)) - (1 << (width - 1)));
        for (int8_t& q : quantized) q = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
        std::vector<float> scales(static_cast<size_t>((n + 15) / 16 * 16)), x(quantized.begin(), quantized.end());
        for (float& s : scales) s = 0.001F * static_cast<float>(random() % 1000 + 1);
        for (int64_t i = 0; i < m; ++i) x[static_cast<size_t>(i * k)] = 127, quantized[static_cast<size_t>(i * k)] = 127;  // so that the scale is 1
        std::vector<std::byte> codes(static_cast<size_t>((n + 15) / 16 * ir::panel_bytes(kernel->code_layout, k, 8)));
        ops::pack(reinterpret_cast<const std::byte*>(rows.data()), n, k, Elem::i8, kernel->code_layout, codes.data());
        const std::vector<float> y = run(p, {.codes = codes.data(), .scales = reinterpret_cast<const std::byte*>(scales.data())}, x, *kernel);
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t r = 0; r < n; ++r) {
            int64_t sum = 0;
            for (int64_t j = 0; j < k; ++j) sum += int64_t{rows[static_cast<size_t>(r * k + j)]} * quantized[static_cast<size_t>(i * k + j)];
            const auto expected = static_cast<float>(static_cast<double>(sum) * static_cast<double>(scales[static_cast<size_t>(r)]));
            ASSERT_EQ(y[static_cast<size_t>(i * n + r)], expected) << kernel->name << ' ' << text << ' ' << i << ' ' << r;
          }
        }
      }
    }
  }
}

TEST(Integers, TheLargestSumsFitAndMoreColumnsAreRefused) {
  for (const Kernel* kernel : kernels_and_emulated()) {
    if (!runs_here(*kernel) || !adds_integers(*kernel) || kernel->code_layout != ir::Layout::panel_int8) continue;
    for (const auto& [text, most] :
         {std::pair<const char*, int64_t>{"int8_tensor:int8_tensor_static", 131071}, {"int8_tensor_asym:int8_tensor_asym_static", 32767}}) {
      Problem p = problem(text, 1, 16, most);
      if (!kernel->accepts(p).ok) continue;
      const bool asymmetric = p.scheme.weight.zero != ir::Zero::none;
      // -128 times -128, and (-128 - 127) times (-128 - 127).
      std::vector<std::byte> codes(static_cast<size_t>(ir::panel_bytes(kernel->code_layout, p.k, 8)), std::byte{0x80});
      const float one = 1;
      const std::byte zero{127};
      Weight w{.codes = codes.data(), .scales = reinterpret_cast<const std::byte*>(&one), .zeros = asymmetric ? &zero : nullptr};
      w.input_scale = 1;
      w.input_zero = asymmetric ? 127 : 0;
      for (const int64_t m : {1, 10}) {
        p.m = m;
        const std::vector<float> y = run(p, w, std::vector<float>(static_cast<size_t>(m * p.k), -1000.0F), *kernel);
        for (const float v : y) ASSERT_EQ(v, static_cast<float>(most * (asymmetric ? 255 * 255 : 128 * 128))) << kernel->name << ' ' << text;
      }
      p.k = most + 1;
      EXPECT_EQ(kernel->accepts(p).why, "adds up at most " + std::to_string(most) + " columns in 32 bits, there are " + std::to_string(p.k));
    }
  }
}

TEST(Integers, WhatIsNoNumberMakesItsTokenOne) {
  constexpr int64_t n = 20, k = 70, m = 4;
  for (const Kernel* kernel : kernels_and_emulated()) {
    if (!runs_here(*kernel) || kernel->code_layout != ir::Layout::panel_int8) continue;
    for (const char* text : {"int8_channel:int8_token", "int8_channel:int8_token_asym", "int8_channel:int8_tensor_static", "int8_channel:int8_tensor_dyn"}) {
      const Problem p = problem(text, m, n, k);
      if (!kernel->accepts(p).ok) continue;
      const bool all = p.scheme.input->type.block == ir::Block{0, 0} && p.scheme.input->when == ir::When::per_call,
                 fixed = p.scheme.input->when == ir::When::fixed;
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        std::vector<std::byte> codes(static_cast<size_t>(2 * ir::panel_bytes(kernel->code_layout, k, 8)), std::byte{1});
        const std::vector<float> scales(32, 1.0F);
        std::vector<float> x(m * k, 1.0F);
        x[2 * k + 33] = bad;
        const Weight w{.codes = codes.data(), .scales = reinterpret_cast<const std::byte*>(scales.data()), .input_scale = 0.01F};
        const std::vector<float> y = run(p, w, x, *kernel);
        for (int64_t i = 0; i < m * n; ++i) {
          // A fixed scale takes what is infinite for its largest number.
          const bool expected = (all || i / n == 2) && (!fixed || std::isnan(bad));
          ASSERT_EQ(std::isnan(y[static_cast<size_t>(i)]), expected) << kernel->name << ' ' << text << ' ' << bad << ' ' << i;
        }
      }
    }
  }
}

// Panels whose columns were moved to the order of their groups give what the same panels give for activations that were moved by hand.
TEST(Integers, ColumnsInTheOrderOfTheirGroups) {
  constexpr int64_t n = 20, k = 100, groups = 4;
  std::mt19937 random(3);
  std::vector<int32_t> columns(k);
  for (int32_t j = 0; j < k; ++j) columns[static_cast<size_t>(j)] = j;
  std::shuffle(columns.begin(), columns.end(), random);
  int ran = 0;
  for (const Kernel* kernel : kernels_and_emulated()) {
    if (!runs_here(*kernel) || kernel->code_layout == ir::Layout::rows) continue;
    for (const char* text : {"int4_g32", "int4_g32_asym:int8_token", "int8_g32:int8_token_asym", "int8_g32:fp8_token"}) {
      for (const int64_t m : {1, 3, 12}) {
        const Problem p = problem(std::string(text) + "+actorder", m, n, k), plain = problem(text, m, n, k);
        ASSERT_EQ(kernel->accepts(p).ok, kernel->accepts(plain).ok);
        if (!kernel->accepts(p).ok) continue;
        ++ran;
        const int width = bits(p.scheme.weight.code);
        std::vector<int8_t> rows(n * k), zeros(2 * 16 * groups, 1);
        for (int8_t& c : rows) c = static_cast<int8_t>(static_cast<int>(random() % (1U << width)) - (1 << (width - 1)));
        std::vector<float> scales(2 * 16 * groups), x(static_cast<size_t>(m * k)), moved(x.size());
        for (float& s : scales) s = 0.001F * static_cast<float>(random() % 1000 + 1);
        for (float& v : x) v = static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 256;
        for (size_t i = 0; i < x.size(); ++i) moved[i] = x[i / k * k + static_cast<size_t>(columns[i % k])];
        std::vector<std::byte> codes(static_cast<size_t>(2 * ir::panel_bytes(kernel->code_layout, k, 8)));
        ops::pack(reinterpret_cast<const std::byte*>(rows.data()), n, k, Elem::i8, kernel->code_layout, codes.data());
        Weight w{.codes = codes.data(), .scales = reinterpret_cast<const std::byte*>(scales.data())};
        if (p.scheme.weight.zero != ir::Zero::none) w.zeros = reinterpret_cast<const std::byte*>(zeros.data());
        const std::vector<float> expected = run(plain, w, moved, *kernel);
        w.columns = columns.data();
        EXPECT_EQ(run(p, w, x, *kernel), expected) << kernel->name << ' ' << text << ' ' << m;
      }
    }
  }
  EXPECT_GT(ran, 0);
}

TEST(Integers, WhatPanelsRefuse) {
  for (const Kernel* k : kernels_and_emulated()) {
    EXPECT_FALSE(adds_integers(*k) && k->accepts(problem("int8_channel:int8_g128", 1, 64, 256)).ok) << k->name;
    EXPECT_FALSE(k->accepts(problem("fp8_channel+actorder", 1, 64, 256)).ok) << k->name;
  }
}

}  // namespace
}  // namespace qb::kernel
