#include "prog/program.h"

#include <gtest/gtest.h>

#include "prog/typing.h"

namespace qb::prog {
namespace {

ir::View dense(int64_t rows, int64_t cols, int width) {
  return ir::View{{rows, cols}, {cols * width, width}, 0};
}

Input input(std::string name, Elem elem, int64_t rows, int64_t cols, int64_t rows_per) {
  return Input{std::move(name), 0, 128, static_cast<uint64_t>(rows * cols * bits(elem) / 8), elem, dense(rows, cols, bits(elem)), rows_per};
}

const ir::QuantType nvfp4{Elem::e2m1, ir::ScaleValues::e4m3, {1, 16}};
const ir::QuantType tile{Elem::e4m3, ir::ScaleValues::any, {128, 128}};

Program unpack_nvfp4() {
  Program p;
  p.rows = 6;
  p.inputs = {input("w", Elem::e2m1, 6, 40, 1), input("w_scale", Elem::e4m3, 6, 3, 1), input("w_scale_2", Elem::f32, 1, 1, 0)};
  p.ops = {Dequantize{nvfp4, 0, 1, 2, ir::ScaleForm::multiply, ir::ScaleForm::divide}, Recode{3, Elem::bf16}};
  p.outputs = {{"w", Elem::bf16, {6, 40}, 4}};
  return p;
}

Program pack_tiles() {
  Program p;
  p.rows = 130;
  p.row_multiple = 128;
  p.inputs = {input("w", Elem::bf16, 130, 200, 1)};
  p.ops = {Quantize{"fp8_block.any", tile, 0}};
  p.outputs = {{"w", Elem::e4m3, {130, 200}, 1}, {"w_scale_inv", Elem::bf16, {2, 2}, 2}};
  return p;
}

std::string why(const Program& p) {
  auto r = type_check(p);
  return r.ok() ? "" : r.error().what;
}

TEST(TypeCheck, GivesEveryValue) {
  auto r = type_check(unpack_nvfp4());
  ASSERT_TRUE(r.ok()) << r.error().what;
  ASSERT_EQ(r->size(), 5u);
  EXPECT_EQ((*r)[3].elem, Elem::f32);
  EXPECT_EQ((*r)[4].row_bytes(), 80u);
  r = type_check(pack_tiles());
  ASSERT_TRUE(r.ok()) << r.error().what;
  EXPECT_EQ((*r)[2].rows, 2);
  EXPECT_EQ((*r)[2].rows_per, 128);
  EXPECT_EQ((*r)[2].elem, Elem::bf16);  // as its output says
  r = type_check(pack_tiles(), [](const Quantize&, Elem) -> std::optional<Elem> { return Elem::f32; });
  EXPECT_FALSE(r.ok());  // the recipe makes float32, the output is bfloat16
}

TEST(TypeCheck, PackedCodesMayLieInBytes) {
  Program p;
  p.inputs = {input("w", Elem::e2m1, 1, 40, 1)};
  p.ops = {Copy{0}};
  p.outputs = {{"w", Elem::u8, {1, 20}, 1}};
  EXPECT_EQ(why(p), "");
}

TEST(TypeCheck, RefusesWhatCannotRun) {
  Program p = unpack_nvfp4();
  p.inputs[1].view.dims[1] = 2;
  EXPECT_NE(why(p).find("the type needs 6 x 3"), std::string::npos) << why(p);
  p = unpack_nvfp4();
  p.outputs[0].shape = {6, 41};
  EXPECT_NE(why(p), "");
  p = unpack_nvfp4();
  p.outputs[0].value = 5;
  EXPECT_NE(why(p), "");
  p = unpack_nvfp4();
  p.ops[1] = Recode{4, Elem::bf16};
  EXPECT_NE(why(p), "");
  p = unpack_nvfp4();
  p.inputs[0].bytes -= 1;
  EXPECT_NE(why(p).find("beyond the tensor"), std::string::npos) << why(p);
  p = unpack_nvfp4();
  p.inputs[0].view.stride[0] = INT64_MAX;
  EXPECT_NE(why(p), "");
  p = unpack_nvfp4();
  p.inputs[0].view.dims = {INT64_MAX, INT64_MAX};
  EXPECT_NE(why(p), "");
  p = pack_tiles();
  p.row_multiple = 64;
  EXPECT_NE(why(p).find("cuts blocks"), std::string::npos) << why(p);
  p = pack_tiles();
  p.outputs[0].shape = {INT64_MAX, INT64_MAX};
  EXPECT_NE(why(p), "");
}

TEST(TypeCheck, TurnedValuesAreForRecipes) {
  const ir::QuantType groups{Elem::int4, ir::ScaleValues::any, {1, 32}};
  Program p;
  p.rows = 96;
  p.row_multiple = 32;
  p.inputs = {input("w", Elem::bf16, 96, 40, 1)};
  p.ops = {Turn{0}, Quantize{"int.any", groups, 1}, Turn{2}, Turn{3}};
  p.outputs = {{"w", Elem::i8, {96, 40}, 4}, {"w_scale", Elem::f32, {3, 40}, 5}};
  EXPECT_EQ(why(p), "");
  EXPECT_NE(to_text(p).find("%1 = turn %0\n"), std::string::npos);
  Program q = p;
  q.outputs[0].value = 2;
  EXPECT_NE(why(q), "") << "a turned output";
  q = p;
  q.ops[2] = PackWords{.src = 2, .bits = 4};
  EXPECT_NE(why(q), "") << "packed as it is";
  q = p;
  q.row_multiple = 16;
  EXPECT_NE(why(q).find("cuts blocks"), std::string::npos) << why(q);
  q = p;
  std::get<Quantize>(q.ops[1]).type.block.cols = 0;  // the whole column
  EXPECT_NE(why(q).find("cuts blocks"), std::string::npos) << why(q);
  q = p;
  std::get<Quantize>(q.ops[1]).type = tile;
  EXPECT_NE(why(q), "");
}

TEST(ToText, IsStable) {
  EXPECT_EQ(to_text(unpack_nvfp4()),
            "program: 6 rows\n"
            "  %0 = w: file 0 at 128, 120 bytes, fp4 6 x 40\n"
            "  %1 = w_scale: file 0 at 128, 18 bytes, fp8 6 x 3\n"
            "  %2 = w_scale_2: file 0 at 128, 4 bytes, f32 1 x 1, whole\n"
            "  %3 = dequantize " +
                ir::to_string(nvfp4) +
                " %0 * %1 / %2\n"
                "  %4 = recode %3 to bf16\n"
                "  w = %4: bf16 [6, 40]\n");
  Program p = pack_tiles();
  p.inputs[0].view.offset = 16;
  p.inputs[0].bytes += 2;
  p.reductions = {Reduction{ReduceKind::absmax, {p.inputs[0]}}};
  std::get<Quantize>(p.ops[0]).reduction = 0;
  p.ops.emplace_back(Literal{Elem::f32, std::string("\0\0\x80\x3f", 4)});
  const std::string text = to_text(p);
  EXPECT_NE(text.find("blocks of 128\n"), std::string::npos) << text;
  EXPECT_NE(text.find("bits 16 + 3200 i + 16 j\n"), std::string::npos) << text;
  EXPECT_NE(text.find("%1, %2 = quantize " + ir::to_string(tile) + " fp8_block.any %0 amax #0\n"), std::string::npos) << text;
  EXPECT_NE(text.find("%3 = literal f32 0x0000803f\n"), std::string::npos) << text;
}

TEST(View, DenseMeansOneRun) {
  EXPECT_TRUE(is_dense(dense(3, 5, 16), Elem::bf16));
  EXPECT_TRUE(is_dense(ir::View{{1, 5}, {0, 16}, 8}, Elem::bf16));
  EXPECT_TRUE(is_dense(ir::View{{4, 1}, {16, 0}, 0}, Elem::bf16));
  EXPECT_FALSE(is_dense(ir::View{{4, 1}, {32, 0}, 0}, Elem::bf16));
  EXPECT_FALSE(is_dense(ir::View{{2, 2}, {8, 4}, 4}, Elem::e2m1));
  EXPECT_FALSE(is_dense(ir::View{{3, 5}, {16, 48}, 0}, Elem::bf16));
}

}  // namespace
}  // namespace qb::prog
