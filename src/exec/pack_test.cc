#include <gtest/gtest.h>

#include "exec/ops.h"
#include "exec/test_support.h"
#include "ir/layout.h"

namespace qb {
namespace {

using namespace test;
using ir::Layout;

struct Case {
  Layout layout;
  Elem elem;
};
constexpr Case cases[] = {{Layout::panel_bf16, Elem::bf16},  {Layout::panel_fp8, Elem::e4m3}, {Layout::panel_fp4, Elem::e2m1},
                          {Layout::panel_int4, Elem::i8},    {Layout::panel_int8, Elem::i8},  {Layout::panel_scale, Elem::e4m3},
                          {Layout::panel_scale, Elem::e8m0}, {Layout::panel_scale, Elem::i8}, {Layout::panel_scale, Elem::f32},
                          {Layout::panel_plain, Elem::f16},  {Layout::panel_plain, Elem::f32}};

unsigned byte_at(const Bytes& b, int64_t i) {
  return std::to_integer<unsigned>(b[static_cast<size_t>(i)]);
}

unsigned code_in_rows(const Bytes& rows, Elem elem, int64_t cols, int64_t i, int64_t j) {
  const int64_t row = i * (cols * bits(elem) / 8);
  if (elem == Elem::bf16 || elem == Elem::f16) return byte_at(rows, row + 2 * j) | byte_at(rows, row + 2 * j + 1) << 8;
  if (elem == Elem::e2m1) return byte_at(rows, row + j / 2) >> (4 * (j % 2)) & 15U;
  if (elem != Elem::f32) return byte_at(rows, row + j);
  return byte_at(rows, row + 4 * j) | byte_at(rows, row + 4 * j + 1) << 8 | byte_at(rows, row + 4 * j + 2) << 16 | byte_at(rows, row + 4 * j + 3) << 24;
}

// As ir/layout.h has it, read from the other side.
unsigned code_in_panels(const Bytes& p, Layout layout, Elem elem, int64_t cols, int64_t i, int64_t j) {
  const int64_t panel = i / 16 * ir::panel_bytes(layout, cols, bits(elem)), r = i % 16;
  switch (layout) {
    case Layout::panel_bf16: {
      const int64_t at = panel + j / 2 * 64 + 4 * r + 2 * (j % 2);
      return byte_at(p, at) | byte_at(p, at + 1) << 8;
    }
    case Layout::panel_fp8:
      return byte_at(p, panel + j / 4 * 64 + r / 4 * 16 + j % 4 / 2 * 8 + r % 4 * 2 + j % 2);
    case Layout::panel_fp4:
    case Layout::panel_int4: {
      const unsigned nibble = byte_at(p, panel + j / 8 * 64 + 4 * r + j % 4) >> (j % 8 / 4 * 4) & 15U;
      return layout == Layout::panel_fp4 ? nibble : (nibble - 8) & 0xFFU;
    }
    case Layout::panel_int8:
      return byte_at(p, panel + j / 4 * 64 + 4 * r + j % 4);
    default: {
      const int64_t at = panel + (16 * j + r) * (bits(elem) / 8);
      if (elem == Elem::f16) return byte_at(p, at) | byte_at(p, at + 1) << 8;
      if (elem != Elem::f32) return byte_at(p, at);
      return byte_at(p, at) | byte_at(p, at + 1) << 8 | byte_at(p, at + 2) << 16 | byte_at(p, at + 3) << 24;
    }
  }
}

TEST(Pack, EveryCodeIsWhereTheLayoutSaysAndTheRestIsZero) {
  for (const Case& c : cases) {
    for (int64_t n : {1, 15, 16, 17, 33}) {
      for (int64_t k : {1, 2, 3, 4, 7, 8, 10, 16, 18, 64, 65}) {
        if (c.elem == Elem::e2m1 && k % 2 != 0) continue;
        Bytes rows = random_bytes(static_cast<uint64_t>(n * k * bits(c.elem) / 8), static_cast<uint32_t>(n * 100 + k));
        if (c.layout == Layout::panel_int4)
          for (std::byte& b : rows) b = static_cast<std::byte>(std::to_integer<unsigned>(b) % 16 - 8);
        const int64_t panels = (n + 15) / 16, bytes = panels * ir::panel_bytes(c.layout, k, bits(c.elem));
        Bytes packed(static_cast<size_t>(bytes) + 8, std::byte{0xA5});
        ops::pack(rows.data(), n, k, c.elem, c.layout, packed.data());
        for (int64_t i = 0; i < 8; ++i) ASSERT_EQ(byte_at(packed, bytes + i), 0xA5U);
        const int64_t columns = bytes / (16 * panels) * 8 / (c.layout == Layout::panel_int4 ? 4 : bits(c.elem));
        for (int64_t i = 0; i < 16 * panels; ++i) {
          for (int64_t j = i < n ? k : 0; j < columns; ++j) ASSERT_EQ(code_in_panels(packed, c.layout, c.elem, k, i, j), 0U) << n << " x " << k << " at " << i;
        }
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t j = 0; j < k; ++j) {
            ASSERT_EQ(code_in_rows(rows, c.elem, k, i, j), code_in_panels(packed, c.layout, c.elem, k, i, j))
                << ir::to_string(c.layout) << ' ' << n << " x " << k << " at " << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST(Pack, BlocksOfPanelsMakeTheWhole) {
  Memory source;
  Context context;
  prog::Program p;
  p.rows = 70;
  p.row_multiple = 16;
  p.inputs = {source.add("w", Elem::e2m1, 70, 48, random_bytes(70 * 24, 1)), source.add("s", Elem::e4m3, 70, 3, random_bytes(70 * 3, 2))};
  p.ops = {prog::Pack{0, Layout::panel_fp4}, prog::Pack{1, Layout::panel_scale}, prog::Pack{1, Layout::rows}};
  p.outputs = {{"codes", Elem::u8, {5, 384}, 2}, {"scales", Elem::u8, {5, 48}, 3}, {"grid", Elem::u8, {70, 3}, 4}};
  const std::vector<Bytes> whole = run_whole(p, source, context);
  Bytes codes(5 * 384);
  const Bytes w = random_bytes(70 * 24, 1);
  ops::pack(w.data(), 70, 48, Elem::e2m1, Layout::panel_fp4, codes.data());
  EXPECT_EQ(whole[0], codes);
  EXPECT_EQ(whole[2], random_bytes(70 * 3, 2));
  for (int64_t rows : {16, 32, 48, 80}) EXPECT_EQ(run_rows(p, rows, 3, source, context), whole) << rows;
  EXPECT_NE(prog::to_text(p).find("%2 = pack %0 as panel_fp4\n"), std::string::npos);
}

TEST(Pack, RefusesWhatHasNoSuchLayout) {
  Memory source;
  prog::Program p;
  p.rows = 40;
  p.row_multiple = 16;
  p.inputs = {source.add("w", Elem::f16, 40, 4, random_bytes(320, 1))};
  const auto why = [&] {
    auto r = prog::type_check(p);
    return r.ok() ? std::string() : r.error().what;
  };
  p.ops = {prog::Pack{0, Layout::panel_bf16}};
  EXPECT_NE(why().find("f16 does not lie in panel_bf16"), std::string::npos) << why();
  p.ops = {prog::Pack{0, Layout::rows}};
  EXPECT_EQ(why(), "");
  p.inputs[0].elem = Elem::bf16;
  p.ops = {prog::Pack{0, Layout::panel_bf16}};
  EXPECT_EQ(why(), "");
  p.row_multiple = 8;
  EXPECT_NE(why().find("cuts panels"), std::string::npos) << why();
  p.ops = {prog::Pack{1, Layout::panel_bf16}};
  EXPECT_NE(why(), "");
}

}  // namespace
}  // namespace qb
