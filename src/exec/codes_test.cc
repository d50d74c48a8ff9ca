// Packed integer codes, against bits that are set one by one; zero points and orders of groups; words.
#include <fmt/format.h>

#include <array>
#include <functional>

#include "exec/ops.h"
#include "exec/test_support.h"
#include "prog/typing.h"

namespace qb {
namespace {

using namespace test;

constexpr std::array widths{Elem::int2, Elem::int3, Elem::int4, Elem::int5, Elem::int6, Elem::int7, Elem::i8};

// One stored byte for several columns: the scales of groups that were split.
TEST(Codes, BytesMayStandForSeveralColumns) {
  const Bytes stored = random_bytes(3 * 5, 3);
  Memory source;
  source.add("before", Elem::u8, 1, 3, Bytes(3));
  prog::Program p;
  p.rows = 3;
  p.inputs = {source.add("scales", Elem::e4m3, 3, 5, stored)};
  p.inputs[0].view.dims[1] = 10;
  p.inputs[0].view.repeat[1].times = 2;
  p.ops.emplace_back(prog::Copy{0});
  p.outputs = {{"out", Elem::e4m3, {3, 10}, 1}};
  Context context;
  const Bytes got = run_whole(p, source, context)[0];
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], stored[i / 10 * 5 + i % 10 / 2]) << i;
  EXPECT_EQ(run_rows(p, 1, 1, source, context)[0], got);
}

std::vector<int8_t> random_codes(int64_t count, int bits, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> code(-(1 << (bits - 1)), (1 << (bits - 1)) - 1);
  std::vector<int8_t> v(static_cast<size_t>(count));
  for (int8_t& x : v) x = static_cast<int8_t>(code(random));
  return v;
}

// Where bit `b` of the code at (i, j) lies.
using Place = std::function<int64_t(int64_t i, int64_t j, int b)>;

struct Layout {
  std::string name;
  Elem elem;
  int64_t rows, cols, bytes;
  ir::View view;
  Place place;
};

void reads(const Layout& l) {
  SCOPED_TRACE(l.name);
  const int width = bits(l.elem);
  const std::vector<int8_t> codes = random_codes(l.rows * l.cols, width, 7);
  Bytes stored(static_cast<size_t>(l.bytes));
  for (int64_t i = 0; i < l.rows; ++i) {
    for (int64_t j = 0; j < l.cols; ++j) {
      const unsigned number = static_cast<unsigned>(codes[static_cast<size_t>(i * l.cols + j)]) + (l.view.offset_binary ? 1U << (width - 1) : 0U);
      for (int b = 0; b < width; ++b) {
        const int64_t at = l.place(i, j, b);
        if ((number >> b & 1U) != 0) stored.at(static_cast<size_t>(at / 8)) |= std::byte{1} << static_cast<int>(at % 8);
      }
    }
  }
  Memory source;
  source.add("before", Elem::u8, 1, 3, Bytes(3));  // at an odd address
  prog::Program p;
  p.rows = l.rows;
  p.inputs = {source.add("codes", l.elem, l.rows, l.cols, stored)};
  p.inputs[0].view = l.view;
  p.ops.emplace_back(prog::Copy{0});
  p.outputs = {{"out", Elem::i8, {l.rows, l.cols}, 1}};
  Context context;
  EXPECT_EQ(as<int8_t>(run_whole(p, source, context)[0]), codes);
  for (int64_t height : {1, 3, 16}) EXPECT_EQ(as<int8_t>(run_rows(p, height, 1, source, context)[0]), codes) << height;
  p.inputs[0].bytes -= 4;
  EXPECT_FALSE(prog::type_check(p).ok()) << "reaches beyond the tensor";
}

TEST(Codes, InWordsAlongColumns) {
  for (const Elem e : widths) {
    const int w = bits(e);
    const int64_t rows = 5, cols = 37;
    for (const int64_t words : {ir::dense_words(cols, w), int64_t{(cols + 32 / w - 1) / (32 / w)}}) {
      const bool dense = words == ir::dense_words(cols, w);
      const auto view = ir::packed_words(rows, cols, w, 1, words);
      ASSERT_TRUE(view);
      const auto place = [=](int64_t i, int64_t j, int b) { return i * words * 32 + (dense ? j * w + b : j / (32 / w) * 32 + j % (32 / w) * w + b); };
      reads({fmt::format("{} bits, {} words", w, words), e, rows, cols, rows * words * 4, *view, place});
    }
  }
  EXPECT_FALSE(ir::packed_words(5, 37, 3, 1, 9));
}

TEST(Codes, InWordsAlongRows) {
  for (const Elem e : widths) {
    const int w = bits(e);
    for (const int64_t cols : {1, 3}) {
      const int64_t rows = 37;
      for (const int64_t words : {ir::dense_words(rows, w), int64_t{(rows + 32 / w - 1) / (32 / w)}}) {
        const bool dense = words == ir::dense_words(rows, w);
        const auto view = ir::packed_words(rows, cols, w, 0, words);
        ASSERT_TRUE(view);
        const auto place = [=](int64_t i, int64_t j, int b) {
          const int64_t bit = dense ? i * w + b : i / (32 / w) * 32 + i % (32 / w) * w + b;
          return bit / 32 * cols * 32 + j * 32 + bit % 32;
        };
        reads({fmt::format("{} bits, {} columns, {} words", w, cols, words), e, rows, cols, cols * words * 4, *view, place});
      }
    }
  }
}

// Orders that other producers use: nibbles interleaved within a word of columns, streams down the columns of the transposed matrix, two rows in a byte.
TEST(Codes, InLanes) {
  const int64_t n = 24, k = 10;
  ir::View interleaved{.dims = {n, k}, .stride = {32, n * 4}};
  interleaved.lanes[0] = {8, {0, 16, 4, 20, 8, 24, 12, 28}};
  interleaved.offset_binary = true;
  reads({"interleaved", Elem::int4, n, k, n * k / 2, interleaved, [=](int64_t i, int64_t j, int b) {
           constexpr std::array order{0, 16, 4, 20, 8, 24, 12, 28};
           return j * n * 4 + i / 8 * 32 + order[static_cast<size_t>(i % 8)] + b;
         }});
  for (const Elem e : {Elem::int3, Elem::int4, Elem::i8}) {
    const int w = bits(e);
    ir::View down{.dims = {n, 64}, .stride = {32, w}};
    down.words[1] = n * 32;
    down.offset_binary = true;
    reads({fmt::format("down, {} bits", w), e, n, 64, n * 64 * w / 8, down,
           [=](int64_t i, int64_t j, int b) { return (j * w + b) / 32 * n * 32 + i * 32 + (j * w + b) % 32; }});
  }
  ir::View pairs{.dims = {n, k}, .stride = {k * 8, 8}};
  pairs.lanes[0] = {2, {0, 4}};
  reads({"pairs of rows", Elem::int4, n, k, n / 2 * k, pairs, [=](int64_t i, int64_t j, int b) { return i / 2 * k * 8 + j * 8 + i % 2 * 4 + b; }});
}

// 32 codes at a time: their lowest bits together, then the next ones.
TEST(Codes, InPlanes) {
  const int64_t n = 64, k = 96;
  for (const Elem e : {Elem::int3, Elem::int5, Elem::int6, Elem::int7}) {
    const int w = bits(e);
    const auto bit_of = [w](int64_t i, int b) {
      int64_t low = 0;
      for (const int plane : {4, 2, 1}) {
        if ((w & plane) == 0) continue;
        if (b < low + plane) return i / 32 * 32 * w + low * 32 + i % 32 * plane + (b - low);
        low += plane;
      }
      return int64_t{-1};
    };
    ir::View down{.dims = {n, k}, .stride = {32, w}};
    down.words[1] = n * 32;
    down.planes = down.offset_binary = true;
    reads({fmt::format("planes down, {} bits", w), e, n, k, n * k * w / 8, down,
           [=](int64_t i, int64_t j, int b) { return bit_of(j, b) / 32 * n * 32 + i * 32 + bit_of(j, b) % 32; }});
    ir::View along{.dims = {n, 3}, .stride = {w, n * w}};
    along.planes = along.offset_binary = true;
    reads({fmt::format("planes along, {} bits", w), e, n, 3, n * 3 * w / 8, along, [=](int64_t i, int64_t j, int b) { return j * n * w + bit_of(i, b); }});
    ir::View rows{.dims = {5, k}, .stride = {k * w, w}};
    rows.planes = rows.offset_binary = true;
    reads({fmt::format("planes of rows, {} bits", w), e, 5, k, 5 * k * w / 8, rows, [=](int64_t i, int64_t j, int b) { return i * k * w + bit_of(j, b); }});
  }
}

// Numbers that are stored as one less. A 0 in a word borrows from its neighbours, unless each field is taken by itself.
TEST(Codes, LessOne) {
  const auto read = [](const ir::View& view, Elem elem, const std::vector<uint32_t>& words, int64_t height) {
    Memory source;
    source.add("before", Elem::u8, 1, 3, Bytes(3));
    prog::Program p;
    p.rows = view.dims[0];
    p.inputs = {source.add("zeros", elem, view.dims[0], view.dims[1], bytes_of(words))};
    p.inputs[0].view = view;
    p.ops.emplace_back(prog::Copy{0});
    p.outputs = {{"out", Elem::i8, {view.dims[0], view.dims[1]}, 1}};
    Context context;
    std::vector<int> numbers;
    for (int8_t c : as<int8_t>(run_rows(p, height, 1, source, context)[0])) numbers.push_back(c + (1 << (bits(elem) - 1)));
    return numbers;
  };
  for (const int64_t height : {1, 3, 16}) {
    // 0 0 8 7 1 0 0 0 | 0 0 0 0 0 0 0 0, less 0x11111111 modulo 2^32.
    ir::View v{.dims = {16, 1}, .stride = {32, 64}, .offset_binary = true, .less = ir::Less::word};
    v.lanes[0] = {8, {0, 4, 8, 12, 16, 20, 24, 28}};
    EXPECT_EQ(read(v, Elem::int4, {0x00017800U - 0x11111111U, 0U - 0x11111111U}, height), (std::vector<int>{0, 0, 8, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
    ir::View bytes{.dims = {4, 2}, .stride = {32, 32}, .offset_binary = true, .less = ir::Less::word};
    bytes.lanes[0] = {4, {0, 8, 16, 24}};
    EXPECT_EQ(read(bytes, Elem::i8, {0x80FF0000U - 0x01010101U, 0x7F7F7F7FU}, height), (std::vector<int>{0, 128, 0, 128, 255, 128, 128, 128}));
    const ir::View fields{.dims = {8, 1}, .stride = {3, 32}, .offset_binary = true, .less = ir::Less::field};
    EXPECT_EQ(read(fields, Elem::int3, {07654321U << 3 | 7U}, height), (std::vector<int>{0, 2, 3, 4, 5, 6, 7, 0}));
  }
  Memory source;
  prog::Program p;
  p.rows = 16;
  p.inputs = {source.add("zeros", Elem::int4, 16, 1, Bytes(8))};
  p.inputs[0].view = {.dims = {16, 1}, .stride = {4, 64}, .offset_binary = true, .less = ir::Less::word};
  EXPECT_FALSE(prog::type_check(p).ok()) << "words are read whole";
}

TEST(Codes, LanesBelongToIntegers) {
  Memory source;
  prog::Program p;
  p.rows = 4;
  p.inputs = {source.add("x", Elem::bf16, 4, 4, Bytes(32))};
  p.inputs[0].view.words[1] = 128;
  EXPECT_FALSE(prog::type_check(p).ok());
  p.inputs[0].view.words[1] = 0;
  p.inputs[0].view.offset_binary = true;
  EXPECT_FALSE(prog::type_check(p).ok());
}

TEST(Dequantize, IntegersWithZeroPointsAndAnOrder) {
  constexpr int64_t n = 6, k = 10, g = 4, groups = 3;
  const std::vector<int8_t> codes = random_codes(n * k, 4, 1), zeros = random_codes(n * groups, 4, 2);
  const std::vector<float> scales = random_floats(n * groups, 3, 0.001F, 2.0F);
  std::vector<int32_t> order{2, 0, 1, 1, 0, 2, 2, 0, 1, 0};
  const ir::QuantType type{Elem::int4, ir::ScaleValues::any, {1, g}, ir::Zero::code};
  for (const bool ordered : {false, true}) {
    Memory source;
    prog::Program p;
    p.rows = n;
    p.inputs = {source.add("w", Elem::i8, n, k, bytes_of(codes)), source.add("s", Elem::f32, n, groups, bytes_of(scales)),
                source.add("z", Elem::i8, n, groups, bytes_of(zeros)), source.add("o", Elem::i32, 1, k, bytes_of(order), 0)};
    prog::Dequantize op{.type = type, .code = 0, .scale = 1, .zero = 2};
    if (ordered) op.order = 3;
    p.ops.emplace_back(op);
    p.outputs = {{"out", Elem::f32, {n, k}, 4}};
    std::vector<float> want;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        const int64_t at = i * groups + (ordered ? order[static_cast<size_t>(j)] : j / g);
        const double number = codes[static_cast<size_t>(i * k + j)] - zeros[static_cast<size_t>(at)];
        want.push_back(static_cast<float>(number * static_cast<double>(scales[static_cast<size_t>(at)])));
      }
    }
    Context context;
    EXPECT_EQ(as<float>(run_whole(p, source, context)[0]), want);
    EXPECT_EQ(as<float>(run_rows(p, 2, 4, source, context)[0]), want);
    EXPECT_NE(prog::to_text(p).find(ordered ? "(%0 - %2) * %1, groups by %3\n" : "(%0 - %2) * %1\n"), std::string::npos) << prog::to_text(p);
    std::get<prog::Dequantize>(p.ops[0]).zero = -1;
    EXPECT_FALSE(prog::type_check(p).ok());
  }
  // A group that does not exist is an error, not a read out of bounds.
  order[3] = groups;
  Memory source;
  prog::Program p;
  p.rows = n;
  p.inputs = {source.add("w", Elem::i8, n, k, bytes_of(codes)), source.add("s", Elem::f32, n, groups, bytes_of(scales)),
              source.add("o", Elem::i32, 1, k, bytes_of(order), 0)};
  ir::QuantType symmetric = type;
  symmetric.zero = ir::Zero::none;
  p.ops.emplace_back(prog::Dequantize{.type = symmetric, .code = 0, .scale = 1, .order = 2});
  p.outputs = {{"out", Elem::f32, {n, k}, 3}};
  Bytes out(n * k * 4);
  Context context;
  const auto done = execute(p, source, out, context);
  ASSERT_FALSE(done.ok());
  EXPECT_NE(done.error().what.find("group 3 for column 3"), std::string::npos) << done.error().what;
}

TEST(PackWords, GoldenVectorsAndTheWayBack) {
  const auto packed = [](const std::vector<int8_t>& codes, int64_t rows, int width) {
    Memory source;
    prog::Program p;
    p.rows = rows;
    const int64_t cols = static_cast<int64_t>(codes.size()) / rows;
    p.inputs = {source.add("codes", Elem::i8, rows, cols, bytes_of(codes))};
    p.ops.emplace_back(prog::PackWords{0, width});
    p.outputs = {{"out", Elem::i32, {rows, ir::dense_words(cols, width)}, 1}};
    Context context;
    return as<uint32_t>(run_whole(p, source, context)[0]);
  };
  EXPECT_EQ(packed({-8, -7, -1, 0, 1, 2, 6, 7}, 1, 4), std::vector<uint32_t>{0xFEA98710});
  EXPECT_EQ(packed({-4, -3, -2, -1, 0, 1, 2, 3, -4, 0, 3}, 1, 3), (std::vector<uint32_t>{0xE0FAC688, 1}));
  for (const Elem e : widths) {
    const int w = bits(e);
    const std::vector<int8_t> codes = random_codes(3 * 45, w, 9);
    Memory source;
    prog::Program p;
    p.rows = 3;
    p.inputs = {source.add("words", e, 3, 45, bytes_of(packed(codes, 3, w)))};
    p.inputs[0].view = *ir::packed_words(3, 45, w, 1, ir::dense_words(45, w));
    p.ops.emplace_back(prog::Copy{0});
    p.outputs = {{"out", Elem::i8, {3, 45}, 1}};
    Context context;
    EXPECT_EQ(as<int8_t>(run_whole(p, source, context)[0]), codes);
  }
}

TEST(PackNibbles, GoldenVectorsAndTheWayBack) {
  constexpr int64_t rows = 6, cols = 10;
  const std::vector<int8_t> codes = random_codes(rows * cols, 4, 3);
  for (const ir::Nibbles order : {ir::Nibbles::row_pairs, ir::Nibbles::high_first}) {
    Memory source;
    Context context;
    prog::Program p;
    p.rows = rows;
    p.row_multiple = 2;
    p.inputs = {source.add("codes", Elem::i8, rows, cols, bytes_of(codes))};
    p.ops.emplace_back(prog::PackNibbles{0, order});
    p.outputs = {{"out", Elem::u8, {rows * cols / 2}, 1}};
    const std::vector<Bytes> stored = run_whole(p, source, context);
    EXPECT_EQ(run_rows(p, 2, 0, source, context), stored);
    prog::Program back;
    back.rows = rows;
    back.inputs = {source.add("packed", Elem::int4, 1, 1, stored[0])};
    back.inputs[0].view = ir::nibbles(rows, cols, order);
    back.ops.emplace_back(prog::Copy{0});
    back.outputs = {{"out", Elem::i8, {rows, cols}, 1}};
    for (const int64_t height : {int64_t{1}, int64_t{3}, rows}) EXPECT_EQ(as<int8_t>(run_rows(back, height, 0, source, context)[0]), codes) << height;
  }
  const auto packed = [](const std::vector<int8_t>& numbers, int64_t height, ir::Nibbles order) {
    std::vector<uint8_t> bytes(numbers.size() / 2);
    ops::pack_nibbles(reinterpret_cast<const std::byte*>(numbers.data()), height, static_cast<int64_t>(numbers.size()) / height, order,
                      reinterpret_cast<std::byte*>(bytes.data()));
    return bytes;
  };
  EXPECT_EQ(packed({-8, 7, 1, -1, 0, 3, 5, -4}, 4, ir::Nibbles::row_pairs), (std::vector<uint8_t>{0x18, 0xF7, 0x50, 0xC3}));
  EXPECT_EQ(packed({-8, 7, 1, -1}, 1, ir::Nibbles::high_first), (std::vector<uint8_t>{0x0F, 0x97}));
}

}  // namespace
}  // namespace qb
