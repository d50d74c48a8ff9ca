#include "recipe/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "num/codec.h"

namespace qb::recipe {
namespace {

ir::QuantType fp8(int32_t rows, int32_t cols) {
  return {Elem::e4m3, ir::ScaleValues::any, {rows, cols}, ir::Zero::none};
}
ir::QuantType nvfp4(int32_t group) {
  return {Elem::e2m1, ir::ScaleValues::e4m3, {1, group}, ir::Zero::none};
}

std::string made_by(const ir::QuantType& type, Numerics n) {
  const Recipe* r = find_recipe(type, n);
  return r == nullptr ? "none" : std::string(r->name);
}

TEST(Recipe, NamesAreUniqueAndFound) {
  for (const Recipe* r : recipes()) {
    EXPECT_EQ(find_recipe(r->name), r);
    EXPECT_TRUE(r->name.ends_with(to_string(r->numerics))) << r->name;
    EXPECT_GE(r->row_multiple, 1);
  }
  EXPECT_EQ(find_recipe("fp8"), nullptr);
}

TEST(Recipe, FoundByType) {
  constexpr Numerics mo = Numerics::modelopt, lc = Numerics::llm_compressor;
  EXPECT_EQ(made_by(fp8(0, 0), mo), "fp8_tensor.modelopt");
  EXPECT_EQ(made_by(fp8(1, 0), mo), "fp8_channel.modelopt");
  EXPECT_EQ(made_by(fp8(128, 128), mo), "fp8_block.modelopt");  // not fp8_block_real.modelopt
  EXPECT_EQ(made_by(fp8(64, 32), mo), "none");
  EXPECT_EQ(made_by(fp8(1, 64), mo), "none");
  EXPECT_EQ(made_by(nvfp4(16), mo), "nvfp4.modelopt");
  EXPECT_EQ(made_by(nvfp4(32), mo), "nvfp4.modelopt");
  EXPECT_EQ(made_by(fp8(0, 0), lc), "fp8_tensor.llm_compressor");
  EXPECT_EQ(made_by(fp8(1, 0), lc), "fp8_channel.llm_compressor");
  EXPECT_EQ(made_by(fp8(1, 64), lc), "fp8_group.llm_compressor");
  EXPECT_EQ(made_by(fp8(128, 128), lc), "fp8_block.llm_compressor");
  EXPECT_EQ(made_by(fp8(64, 32), lc), "fp8_block.llm_compressor");
  EXPECT_EQ(made_by(nvfp4(16), lc), "nvfp4.llm_compressor");
  EXPECT_EQ(made_by(nvfp4(32), lc), "none");
  EXPECT_EQ(made_by({Elem::i8, ir::ScaleValues::any, {0, 0}, ir::Zero::none}, lc), "int_tensor.llm_compressor");
  EXPECT_EQ(made_by({Elem::i8, ir::ScaleValues::any, {1, 0}, ir::Zero::none}, lc), "int_rows.llm_compressor");
  EXPECT_EQ(made_by({Elem::int4, ir::ScaleValues::any, {1, 128}, ir::Zero::none}, lc), "int_rows.llm_compressor");
  EXPECT_EQ(made_by({Elem::int4, ir::ScaleValues::any, {1, 128}, ir::Zero::code}, lc), "int_rows_asym.llm_compressor");
  EXPECT_EQ(made_by({Elem::int4, ir::ScaleValues::any, {1, 128}, ir::Zero::code}, mo), "none");
  for (const Numerics n : {mo, lc}) {
    EXPECT_EQ(made_by(fp8(0, 128), n), "none");
    EXPECT_EQ(made_by({Elem::int4, ir::ScaleValues::any, {0, 0}, ir::Zero::code}, n), "none");
    EXPECT_EQ(made_by({Elem::int4, ir::ScaleValues::any, {16, 16}, ir::Zero::none}, n), "none");
    EXPECT_EQ(made_by({}, n), "none");
  }
}

TEST(Recipe, RowsStartAtWholeBlocks) {
  const Recipe* tile = find_recipe("fp8_block.llm_compressor");
  EXPECT_EQ(row_multiple(*tile, fp8(64, 32)) % 64, 0);
  EXPECT_EQ(row_multiple(*tile, fp8(96, 32)) % 96, 0);
  EXPECT_EQ(row_multiple(*find_recipe("fp8_channel.modelopt"), fp8(1, 0)), 1);
  EXPECT_EQ(row_multiple(*find_recipe("fp8_tensor.modelopt"), fp8(0, 0)), 1);
}

TEST(Recipe, AbsMax) {
  const uint16_t bf16[] = {0x8000, 0x3F80, 0xC040, 0x0001};
  EXPECT_EQ(absmax(bf16, Elem::bf16, 4, Isa::generic), 3.0F);
  EXPECT_EQ(absmax(bf16, Elem::bf16, 0, Isa::generic), 0.0F);
  const uint16_t f16[] = {0x8000, 0xC200, 0x3C00};
  EXPECT_EQ(absmax(f16, Elem::f16, 3, Isa::generic), 3.0F);
  const float f32[] = {-0.0F, -3.0F, 1.0F, std::numeric_limits<float>::infinity()};
  EXPECT_EQ(absmax(f32, Elem::f32, 3, Isa::generic), 3.0F);
  EXPECT_EQ(absmax(f32, Elem::f32, 4, Isa::generic), std::numeric_limits<float>::infinity());
  const float nan[] = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::quiet_NaN(), 1.0F};
  EXPECT_TRUE(absmax(nan, Elem::f32, 3, Isa::generic) != absmax(nan, Elem::f32, 3, Isa::generic));
}

std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string s((std::istreambuf_iterator<char>(in)), {});
  std::vector<std::byte> v(s.size());
  if (!s.empty()) std::memcpy(v.data(), s.data(), s.size());
  return v;
}

// What the producers themselves wrote: tests/data/recipe/README.md.
TEST(Recipe, BytesOfTheProducers) {
  const std::string folder = QB_TEST_DATA "/recipe/";
  std::ifstream list(folder + "cases.txt");
  int cases = 0;
  for (std::string line; std::getline(list, line); ++cases) {
    SCOPED_TRACE(line);
    std::istringstream fields(line);
    std::string label, name, dtype;
    int64_t rows = 0, k = 0;
    int32_t tall = 0, wide = 0;
    uint32_t amax = 0;
    fields >> label >> name >> dtype >> rows >> k >> tall >> wide >> std::hex >> amax;
    ASSERT_FALSE(fields.fail());
    const Recipe* recipe = find_recipe(name);
    ASSERT_NE(recipe, nullptr);
    const bool fp4 = name.starts_with("nvfp4");
    const ir::QuantType type = fp4 ? nvfp4(wide) : fp8(tall, wide);
    ASSERT_TRUE(recipe->makes(type));
    const Elem source = elem_from_name(dtype).value();
    EXPECT_EQ(recipe->needs_amax, amax != 0);

    const int64_t weight_bytes = rows * k * bits(source) / 8;
    const int64_t code_bytes = rows * k * bits(type.code) / 8;
    const int64_t scale_count = (tall == 0 ? 1 : (rows + tall - 1) / tall) * (wide == 0 ? 1 : (k + wide - 1) / wide);
    const int64_t scale_bytes = scale_count * bits(recipe->scale_elem(source)) / 8;
    const std::vector<std::byte> want = read_file(folder + label + ".bin");
    ASSERT_EQ(static_cast<int64_t>(want.size()), weight_bytes + code_bytes + scale_bytes + (fp4 ? 4 : 0));

    std::vector<std::byte> got(want.begin(), want.begin() + weight_bytes);
    got.resize(want.size());
    std::byte* codes = got.data() + weight_bytes;
    recipe->run({want.data(), source, rows, k, rows, std::bit_cast<float>(amax), type, codes, codes + code_bytes,
                 fp4 ? codes + code_bytes + scale_bytes : nullptr, Isa::generic});
    EXPECT_TRUE(got == want);
  }
  EXPECT_EQ(cases, 15);
}

TEST(Recipe, Nvfp4GoldenVector) {
  const float w[16] = {-6, -3, 0.1F, 0.25F, 0.5F, 0.75F, 1, 1.25F, 1.5F, 1.75F, 2, 2.5F, 3, 3.5F, 5, 0};
  const uint8_t want[8] = {0xDF, 0x00, 0x21, 0x22, 0x43, 0x44, 0x65, 0x06};
  for (const Numerics n : {Numerics::modelopt, Numerics::llm_compressor}) {
    std::byte codes[8], scale[1], global[4];
    const Recipe* r = find_recipe(nvfp4(16), n);
    r->run({w, Elem::f32, 1, 16, 1, 6.0F, nvfp4(16), codes, scale, global, Isa::generic});
    EXPECT_EQ(std::memcmp(codes, want, 8), 0) << r->name;
    EXPECT_EQ(scale[0], std::byte{0x7E});
    float g = 0;
    std::memcpy(&g, global, sizeof g);
    EXPECT_EQ(g, r->global_divides ? 448.0F : std::bit_cast<float>(0x3B124925U));
  }
}

// Blocks whose best scale is known. Four over six: 4 and 3 lie on the grid when the largest is stored as 4, and 5 does not when it is stored as 6.
TEST(Recipe, Nvfp4SearchedScales) {
  const auto made = [](const char* name, std::vector<float> w, float amax) {
    const Recipe* r = find_recipe(name);
    EXPECT_TRUE(r != nullptr && r->makes(nvfp4(16)) && !r->makes(nvfp4(32)) && r->needs_amax) << name;
    std::vector<std::byte> out(w.size() / 2 + w.size() / 16 + 4);
    std::byte* scales = out.data() + w.size() / 2;
    r->run({w.data(), Elem::f32, 1, static_cast<int64_t>(w.size()), 1, amax, nvfp4(16), out.data(), scales, scales + w.size() / 16, Isa::generic});
    return out;
  };
  std::vector<float> w(64, 0.0F);
  for (size_t i = 0; i < 16; ++i) w[i] = i % 2 == 0 ? 4.0F : -3.0F;  // on the grid with a scale of 1, as 4 and 3
  for (size_t i = 16; i < 32; ++i) w[i] = 6.0F;                      // all equal: any scale that stores it exactly; the first of them
  w[32] = 6.0F * 256;                                                // the tensor's amax: the second level is 1
  const std::vector<std::byte> four = made("nvfp4_four_over_six.modelopt", w, 6.0F * 256);
  EXPECT_EQ(four[32], std::byte{0x38});  // 1: amax times 1.5 as 6
  EXPECT_EQ(four[0], std::byte{0xD6});
  EXPECT_EQ(four[33], std::byte{0x38});  // 1
  EXPECT_EQ(four[34], std::byte{0x78});  // 256
  EXPECT_EQ(four[35], std::byte{0x38});  // a block of zeros: 1 / amax, which four over six holds as 1 * 256 / 256
  float global = 0;
  std::memcpy(&global, four.data() + 36, 4);
  EXPECT_EQ(global, 1.0F);

  w[32] = 6.0F * 448;
  const std::vector<std::byte> sweep = made("nvfp4_mse.modelopt", w, 6.0F * 448);
  EXPECT_EQ(sweep[32], std::byte{0x38});
  EXPECT_EQ(sweep[33], std::byte{0x38});
  EXPECT_EQ(sweep[34], std::byte{0x7E});  // 448
  EXPECT_EQ(sweep[35], std::byte{0x01});  // a block of zeros: the first that was tried
  std::memcpy(&global, sweep.data() + 36, 4);
  EXPECT_EQ(global, 1.0F);
}

TEST(Recipe, IntegerGoldenVectors) {
  const Recipe* r = find_recipe("int_rows.llm_compressor");
  const ir::QuantType type{Elem::int4, ir::ScaleValues::any, {1, 8}, ir::Zero::none};
  // The scale is 7.5 / 7.5: the largest is clamped, the smallest is not; halves go to even numbers; NaN has no code.
  const float w[24] = {7.5F, -7.5F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, 0, 0, -0.0F, 0, 0, 0, 0, 0, 0, 1, std::numeric_limits<float>::quiet_NaN(),
                       0,    0,     0,    0,    0,    0};
  const int8_t want[24] = {7, -8, 0, 2, 2, 0, -2};
  std::byte codes[24];
  float scales[3];
  r->run({w, Elem::f32, 1, 24, 1, 0, type, codes, reinterpret_cast<std::byte*>(scales), nullptr, Isa::generic});
  EXPECT_EQ(std::memcmp(codes, want, 24), 0);
  EXPECT_EQ(scales[0], 1.0F);
  EXPECT_EQ(scales[1], std::numeric_limits<float>::epsilon());
  EXPECT_NE(scales[2], scales[2]);
}

// An all-zero matrix never gives NaN, whoever's numerics: the codes are zeros and the scales are positive.
TEST(Recipe, AllZeroMatrix) {
  const std::vector<uint16_t> w(256 * 32);
  for (const Recipe* r : recipes()) {
    for (const ir::QuantType& type : {fp8(0, 0), fp8(1, 0), fp8(1, 16), fp8(128, 128), nvfp4(16)}) {
      if (!r->makes(type)) continue;
      std::vector<std::byte> codes(256 * 32, std::byte{0xFF}), scales(256 * 32);
      r->run({w.data(), Elem::bf16, 256, 32, 256, 0.0F, type, codes.data(), scales.data(), nullptr, Isa::generic});
      codes.resize(256 * 32 * static_cast<size_t>(bits(type.code)) / 8);
      EXPECT_TRUE(codes == std::vector<std::byte>(codes.size())) << r->name;
      float f32 = 0;
      uint16_t bf16 = 0;
      std::memcpy(&f32, scales.data(), 4);
      std::memcpy(&bf16, scales.data(), 2);
      switch (r->scale_elem(Elem::bf16)) {
        case Elem::f32:
          EXPECT_EQ(f32, 1.0F) << r->name;
          break;
        case Elem::bf16:
          EXPECT_EQ(bf16, 0x3C00) << r->name;
          break;  // 2^-7
        default:
          EXPECT_NE(scales[0], std::byte{0}) << r->name;
          if (r == find_recipe(type, r->numerics)) {
            EXPECT_EQ(scales[0], r->global_divides ? std::byte{0x20} : std::byte{0x38}) << r->name;
          }
      }
    }
  }
}

}  // namespace
}  // namespace qb::recipe
