// Matrices in the basis of Hadamard matrices, against the definition of prog::Hadamard.
#include "num/hadamard.h"

#include <bit>
#include <cmath>
#include <thread>

#include "exec/derived_source.h"
#include "exec/test_support.h"

namespace qb {
namespace {

using namespace test;
using prog::Basis;

double element(const Basis& b, int64_t q, int64_t p) {
  if (b.block == 1) return q == p ? 1 : 0;
  if (q / b.block != p / b.block) return 0;
  const auto shared = static_cast<uint64_t>((q % b.block) & (p % b.block));
  return random_sign(static_cast<uint64_t>(q % b.period)) * (std::popcount(shared) % 2 == 0 ? 1 : -1) / std::sqrt(static_cast<double>(b.block));
}

TEST(Hadamard, IsWhatTheProgramSays) {
  constexpr int64_t rows = 24, cols = 48;
  const std::vector<float> gains = random_floats(cols, 2, 0.5F, 2);
  for (const Elem elem : {Elem::f32, Elem::bf16, Elem::f16})
    for (const auto& [along, down] :
         {std::pair{Basis{16, 48}, Basis{}}, std::pair{Basis{}, Basis{8, 24}}, std::pair{Basis{4, 12}, Basis{8, 8}}, std::pair{Basis{1, 1}, Basis{1, 1}}})
      for (const bool with_gains : {false, true}) {
        std::vector<float> x = random_floats(rows * cols, 1, -1, 1);
        Bytes stored;
        if (elem == Elem::f32) {
          stored = bytes_of(x);
        } else {
          std::vector<uint16_t> half;
          for (float& f : x) {
            half.push_back(elem == Elem::bf16 ? encode_bf16(f) : encode_f16(f));
            f = elem == Elem::bf16 ? decode_bf16(half.back()) : decode_f16(half.back());
          }
          stored = bytes_of(half);
        }
        Memory memory;
        prog::Program p;
        p.rows = rows;
        p.row_multiple = down.block;
        p.inputs.push_back(memory.add("x", elem, rows, cols, stored));
        p.inputs.push_back(memory.add("gains", Elem::f32, 1, cols, bytes_of(gains), 0));
        p.ops.emplace_back(prog::Hadamard{.src = 0, .to = Elem::f32, .gains = with_gains ? 1 : -1, .along = along, .down = down});
        p.outputs.push_back({.name = "y", .dtype = Elem::f32, .shape = {rows, cols}, .value = 2});
        Context context;
        const Bytes whole = run_whole(p, memory, context)[0];
        EXPECT_TRUE(run_rows(p, 8, 1, memory, context)[0] == whole) << "signs of rows are those of the whole matrix";
        const std::vector<float> y = as<float>(whole);
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < cols; ++j) {
            double want = 0;
            for (int64_t a = 0; a < rows; ++a)
              for (int64_t b = 0; b < cols; ++b) {
                const double t = element(down, a, i) * element(along, b, j);
                if (t != 0)
                  want += t * static_cast<double>(x[static_cast<size_t>(a * cols + b)]) * (with_gains ? static_cast<double>(gains[static_cast<size_t>(b)]) : 1);
              }
            // Sums of 32 numbers up to 2 in double, rounded once to float32.
            EXPECT_NEAR(y[static_cast<size_t>(i * cols + j)], want, std::abs(want) * 0x1p-24 + 0x1p-40) << i << "," << j;
          }
        // Rounded once: to the format at once, not by way of float32.
        if (elem == Elem::f32) continue;
        std::get<prog::Hadamard>(p.ops[0]).to = elem;
        p.outputs[0].dtype = elem;
        const std::vector<uint16_t> narrow = as<uint16_t>(run_whole(p, memory, context)[0]);
        for (size_t i = 0; i < narrow.size(); ++i) {
          const float f = elem == Elem::bf16 ? decode_bf16(narrow[i]) : decode_f16(narrow[i]);
          EXPECT_NEAR(f, y[i], std::abs(y[i]) * (elem == Elem::bf16 ? 0x1.01p-8F : 0x1.01p-11F) + 0x1p-25F);
        }
      }
}

TEST(Hadamard, WhatCannotBeIsMalformed) {
  Memory memory;
  prog::Program good;
  good.rows = 16;
  good.row_multiple = 8;
  good.inputs.push_back(memory.add("x", Elem::f32, 16, 24, Bytes(16 * 24 * 4)));
  good.inputs.push_back(memory.add("gains", Elem::f32, 1, 24, Bytes(96), 0));
  good.ops.emplace_back(prog::Hadamard{.src = 0, .to = Elem::bf16, .gains = 1, .along = {8, 24}, .down = {8, 16}});
  good.outputs.push_back({.name = "y", .dtype = Elem::bf16, .shape = {16, 24}, .value = 2});
  EXPECT_TRUE(prog::type_check(good).ok());
  const auto refused = [&](const auto& change) {
    prog::Program p = good;
    change(p, std::get<prog::Hadamard>(p.ops[0]));
    return !prog::type_check(p).ok();
  };
  EXPECT_TRUE(refused([](auto&, auto& op) { op.along.block = 16; }));
  EXPECT_TRUE(refused([](auto&, auto& op) { op.along.block = 12; }));
  EXPECT_TRUE(refused([](auto&, auto& op) { op.along.block = 0; }));
  EXPECT_TRUE(refused([](auto&, auto& op) { op.along.period = 0; }));
  EXPECT_TRUE(refused([](auto&, auto& op) { op.down.block = 2 * prog::largest_basis; }));
  EXPECT_TRUE(refused([](auto& p, auto&) { p.row_multiple = 4; }));
  EXPECT_TRUE(refused([](auto&, auto& op) { op.src = 7; }));
  EXPECT_TRUE(refused([](auto&, auto& op) { op.gains = 0; }));
  EXPECT_TRUE(refused([](auto&, auto& op) { op.to = Elem::e4m3; }));
}

// Few may make at a time, and the others wait: what is read is the same.
TEST(DerivedSource, SoManyAtOnce) {
  Memory memory;
  prog::Program p;
  p.rows = 64;
  p.row_multiple = 8;
  p.inputs.push_back(memory.add("x", Elem::f32, 64, 16, bytes_of(random_floats(64 * 16, 3, -1, 1))));
  p.ops.emplace_back(prog::Hadamard{.src = 0, .to = Elem::f32, .down = {8, 64}});
  p.outputs.push_back({.name = "y", .dtype = Elem::f32, .shape = {64, 16}, .value = 1});
  Context context;
  const Bytes want = run_whole(p, memory, context)[0];
  DerivedSource source(memory, 1, {p, p}, 1 << 20, Isa::generic, 1);
  std::vector<std::thread> threads;
  std::vector<Bytes> got(4, Bytes(2 * want.size()));
  for (size_t t = 0; t < got.size(); ++t)
    threads.emplace_back([&, t] {
      for (size_t at = 0; at < got[t].size(); at += 100) {
        const ReadRequest read{1, at, std::span(got[t]).subspan(at, std::min<size_t>(100, got[t].size() - at))};
        EXPECT_TRUE(source.read(std::span(&read, 1)).ok());
      }
    });
  for (std::thread& t : threads) t.join();
  for (const Bytes& bytes : got)
    EXPECT_TRUE(std::equal(want.begin(), want.end(), bytes.begin()) && std::equal(want.begin(), want.end(), bytes.begin() + static_cast<int64_t>(want.size())));
}

}  // namespace
}  // namespace qb
