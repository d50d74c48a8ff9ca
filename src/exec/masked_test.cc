// Masked matrices and maps of rows and columns, against their definitions.
#include "exec/test_support.h"

#include "prog/program.h"

namespace qb {
namespace {

using namespace test;

struct Sparse {
  int64_t rows, cols;
  std::vector<uint16_t> whole, numbers;
  Bytes bits;
  std::vector<int64_t> starts{0};
};

// two_of_four: in every four columns; otherwise any, a row without any among them.
Sparse sparse(int64_t rows, int64_t cols, bool two_of_four, uint32_t seed) {
  Sparse s{.rows = rows, .cols = cols, .whole = std::vector<uint16_t>(static_cast<size_t>(rows * cols)), .numbers = {}, .bits = {}};
  const int64_t row_bytes = (cols + 7) / 8;
  s.bits.resize(static_cast<size_t>(rows * row_bytes));
  std::mt19937 random(seed);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += 4) {
      constexpr unsigned pairs[] = {3, 5, 6, 9, 10, 12};
      unsigned four = two_of_four ? pairs[random() % 6] : i == 1 ? 0U : static_cast<unsigned>(random() % 16);
      for (int64_t c = j; c < std::min(j + 4, cols); ++c, four >>= 1) {
        if ((four & 1U) == 0) continue;
        const auto number = static_cast<uint16_t>(1 + random() % 65535);
        s.whole[static_cast<size_t>(i * cols + c)] = number;
        s.numbers.push_back(number);
        s.bits[static_cast<size_t>(i * row_bytes + c / 8)] |= static_cast<std::byte>(1U << (c % 8));
      }
    }
    s.starts.push_back(static_cast<int64_t>(s.numbers.size()));
  }
  return s;
}

prog::Program reading(const Sparse& s, bool with_starts, Memory& memory) {
  memory.add("before", Elem::u8, 1, 5, random_bytes(5, 1));
  prog::Input in = memory.add("w.compressed", Elem::bf16, 1, static_cast<int64_t>(s.numbers.size()), bytes_of(s.numbers));
  const prog::Input bits = memory.add("w.bitmask", Elem::u8, s.rows, (s.cols + 7) / 8, s.bits, 1, 1);
  in.view = {.dims = {s.rows, s.cols}};
  in.mask = {.tensor = "w.bitmask", .file = bits.file, .offset = bits.offset, .bytes = bits.bytes};
  if (with_starts) in.mask.starts = s.starts;
  prog::Program p;
  p.rows = s.rows;
  p.inputs.push_back(in);
  p.ops.emplace_back(prog::Copy{0});
  p.outputs.push_back({.name = "w", .dtype = Elem::bf16, .shape = {s.rows, s.cols}, .value = 1});
  return p;
}

void reads(const Sparse& s, bool with_starts) {
  Memory memory;
  const prog::Program p = reading(s, with_starts, memory);
  ASSERT_TRUE(prog::type_check(p).ok()) << prog::type_check(p).error().what;
  Context context;
  EXPECT_EQ(as<uint16_t>(run_whole(p, memory, context)[0]), s.whole);
  for (const int64_t rows : {1, 3})
    for (const size_t shift : {0, 1}) EXPECT_EQ(as<uint16_t>(run_rows(p, rows, shift, memory, context)[0]), s.whole) << rows;
}

TEST(Masked, TwoOfFour) {
  for (const int64_t cols : {4, 8, 12, 128}) reads(sparse(7, cols, true, static_cast<uint32_t>(cols)), false);
}

TEST(Masked, AnyNumbersOfARow) {
  for (const int64_t cols : {1, 7, 8, 13, 100}) reads(sparse(7, cols, false, static_cast<uint32_t>(cols)), true);
}

// Bits that name more or fewer numbers than there are give an error with the tensor and the row, whatever block they are in.
TEST(Masked, BitsThatDoNotFitAreNamed) {
  for (const bool with_starts : {false, true}) {
    Sparse s = sparse(6, 16, !with_starts, 3);
    s.bits[8] ^= std::byte{1};  // row 4
    Memory memory;
    const prog::Program p = reading(s, with_starts, memory);
    Context context;
    Bytes out(s.whole.size() * 2);
    const auto r = execute(p, memory, out, context);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code, Errc::bad_input);
    EXPECT_NE(r.error().what.find("w.bitmask"), std::string::npos) << r.error().what;
    EXPECT_NE(r.error().what.find("row 4"), std::string::npos) << r.error().what;
  }
}

TEST(Masked, WhatReachesBeyondItsTensorsIsNoProgram) {
  const Sparse s = sparse(6, 16, false, 3);
  const auto refused = [&](auto change) {
    Memory memory;
    prog::Program p = reading(s, true, memory);
    change(p.inputs[0]);
    return !prog::type_check(p).ok();
  };
  EXPECT_FALSE(refused([](prog::Input&) {}));
  EXPECT_TRUE(refused([](prog::Input& in) { in.mask.starts.back() += 1; }));
  EXPECT_TRUE(refused([](prog::Input& in) { in.mask.starts.pop_back(); }));
  EXPECT_TRUE(refused([](prog::Input& in) { in.mask.starts[2] = -1; }));
  EXPECT_TRUE(refused([](prog::Input& in) { in.mask.starts[3] = in.mask.starts[2] + 17; }));
  EXPECT_TRUE(refused([](prog::Input& in) { std::swap(in.mask.starts[2], in.mask.starts[3]); }) || s.starts[2] == s.starts[3]);
  EXPECT_TRUE(refused([](prog::Input& in) { in.mask.bytes -= 1; }));
  EXPECT_TRUE(refused([](prog::Input& in) { in.mask.starts.clear(); }));  // two of four would be more
  EXPECT_TRUE(refused([](prog::Input& in) { in.view.stride = {256, 16}; }));
  EXPECT_TRUE(refused([](prog::Input& in) { in.elem = Elem::e2m1; }));
}

// Along: each block of a row times the matrix. Down: each block of a column.
TEST(Rotate, IsAProductWithBlocks) {
  constexpr int64_t rows = 6, cols = 4, block = 2;
  const std::vector<double> matrix{1, 2, 3, 5};
  std::vector<float> x(static_cast<size_t>(rows * cols));
  std::iota(x.begin(), x.end(), 1.0F);
  for (const bool down : {false, true})
    for (const bool transposed : {false, true}) {
      Memory memory;
      prog::Program p;
      p.rows = rows;
      p.row_multiple = down ? block : 1;
      p.inputs.push_back(memory.add("x", Elem::f32, rows, cols, bytes_of(x)));
      p.inputs.push_back(memory.add("m", Elem::f64, 1, block * block, bytes_of(matrix), 0));
      p.ops.emplace_back(prog::Rotate{0, 1, down, transposed, 4});
      p.outputs.push_back({.name = "y", .dtype = Elem::f32, .shape = {rows, cols}, .value = 2});
      Context context;
      const std::vector<float> y = as<float>(run_whole(p, memory, context)[0]);
      EXPECT_EQ(as<float>(run_rows(p, 2, 1, memory, context)[0]), y);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) {
          double want = 0;
          for (int64_t q = 0; q < block; ++q) {
            const int64_t to = (down ? i : j) % block, from_i = down ? i - to + q : i, from_j = down ? j : j - to + q;
            want += static_cast<double>(x[static_cast<size_t>(from_i * cols + from_j)]) *
                    matrix[static_cast<size_t>(transposed ? to * block + q : q * block + to)] / 4;
          }
          EXPECT_EQ(y[static_cast<size_t>(i * cols + j)], static_cast<float>(want)) << i << "," << j;
        }
      prog::Program cut = p;
      cut.row_multiple = 3;
      EXPECT_EQ(prog::type_check(cut).ok(), !down);
      p.inputs[1].view.dims[1] = 3;
      EXPECT_FALSE(prog::type_check(p).ok());
    }
}

}  // namespace
}  // namespace qb
