// Every level of Isa against a scalar reference that is written from the rules with the codecs alone, on data full of special values.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "num/codec.h"
#include "recipe/loops.h"
#include "recipe/recipe.h"

namespace qb::recipe {
namespace {

std::vector<Isa> levels() {
  std::vector<Isa> v = {Isa::generic};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) v.push_back(Isa::avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    v.push_back(Isa::avx512);
  }
#endif
  return v;
}

struct Matrix {
  Elem elem;
  int64_t rows, k;
  std::vector<uint32_t> bits;    // one element each
  std::vector<std::byte> bytes;  // as stored, behind one odd byte: weights need no alignment
  const std::byte* data() const { return bytes.data() + 1; }
  float at(int64_t i) const {
    const uint32_t b = bits[static_cast<size_t>(i)];
    return elem == Elem::bf16 ? decode_bf16(static_cast<uint16_t>(b)) : elem == Elem::f16 ? decode_f16(static_cast<uint16_t>(b)) : std::bit_cast<float>(b);
  }
  uint32_t magnitude(int64_t i) const { return bits[static_cast<size_t>(i)] & (elem == Elem::f32 ? 0x7FFFFFFFU : 0x7FFFU); }
  bool negative(int64_t i) const { return magnitude(i) != bits[static_cast<size_t>(i)]; }
};

enum class Fill { any_bits, gauss, gauss_with_specials, subnormal, huge, with_zero_blocks };

Matrix make(Elem elem, int64_t rows, int64_t k, Fill fill, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> gauss(0, 1);
  Matrix m{elem, rows, k, {}, std::vector<std::byte>(1)};
  const auto encode = [elem](float x) { return elem == Elem::bf16 ? encode_bf16(x) : elem == Elem::f16 ? encode_f16(x) : std::bit_cast<uint32_t>(x); };
  for (int64_t i = 0; i < rows * k; ++i) {
    uint32_t b = static_cast<uint32_t>(rng());
    const float g = gauss(rng);
    const uint32_t die = static_cast<uint32_t>(rng()) % 64;
    if (fill != Fill::any_bits) b = encode(g);
    if (fill == Fill::subnormal) b = encode(g * (elem == Elem::f16 ? 0x1p-16F : 0x1p-128F));
    if (fill == Fill::huge) b = encode(g * (elem == Elem::f16 ? 0x1p13F : 0x1p125F));
    if (fill == Fill::with_zero_blocks && (i / 32) % 3 == 1) b = encode(die % 2 == 0 ? 0.0F : -0.0F);
    if (fill == Fill::gauss_with_specials) {
      if (die == 0) b = encode(-0.0F);
      if (die == 1) b = encode(std::ldexp(g, -140));
      if (die == 2) b = encode(std::ldexp(g, -12));
      if (die == 3 && i % 7 == 0) b = encode(std::copysign(INFINITY, g));
      if (die == 4 && i % 7 == 0) b = encode(std::copysign(NAN, g));
    }
    if (elem != Elem::f32) b &= 0xFFFFU;
    m.bits.push_back(b);
    for (int byte = 0; byte < bits(elem) / 8; ++byte) m.bytes.push_back(static_cast<std::byte>(b >> (8 * byte)));
  }
  return m;
}

struct Result {
  std::vector<std::byte> codes, scales, global;
  friend bool operator==(const Result&, const Result&) = default;
};

void append(std::vector<std::byte>& v, uint32_t bits, int bytes) {
  for (int i = 0; i < bytes; ++i) v.push_back(static_cast<std::byte>(bits >> (8 * i)));
}

float as_source(Elem elem, float x) {
  return elem == Elem::bf16 ? round_bf16(x) : elem == Elem::f16 ? round_f16(x) : x;
}
float finfo_tiny(Elem elem) {
  return elem == Elem::f16 ? 0x1p-14F : 0x1p-126F;
}
float finfo_eps(Elem elem) {
  return elem == Elem::bf16 ? 0x1p-7F : elem == Elem::f16 ? 0x1p-10F : 0x1p-23F;
}

float block_amax(const Matrix& m, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  int64_t at = row * m.k + col;
  for (int64_t i = row; i < std::min(row + rows, m.rows); ++i) {
    for (int64_t j = col; j < std::min(col + cols, m.k); ++j) at = m.magnitude(i * m.k + j) > m.magnitude(at) ? i * m.k + j : at;
  }
  return std::fabs(m.at(at));
}

Result fp8_reference(std::string_view name, const Matrix& m, ir::Block block, float amax) {
  Result r;
  const bool compressed = name.ends_with(".llm_compressor"), tensor = name.starts_with("fp8_tensor"), real = name.starts_with("fp8_block_real");
  const int64_t tall = block.rows == 0 ? m.rows : block.rows, wide = block.cols == 0 ? m.k : block.cols;
  r.codes.resize(static_cast<size_t>(m.rows * m.k));
  for (int64_t row = 0; row < m.rows; row += tall) {
    for (int64_t col = 0; col < m.k; col += wide) {
      float a = tensor ? amax : block_amax(m, row, tall, col, wide);
      if (!compressed && !tensor && !real) a = std::max(a == 0 || std::isnan(a) ? 448.0F : a, finfo_tiny(m.elem));
      float scale = a / 448.0F;
      if (compressed || real) scale = as_source(m.elem, scale);
      if (compressed && scale == 0) scale = finfo_eps(m.elem);
      if (!compressed && (scale == 0 || std::isnan(scale))) scale = 1;
      for (int64_t i = row; i < std::min(row + tall, m.rows); ++i) {
        for (int64_t j = col; j < std::min(col + wide, m.k); ++j) {
          float q = m.at(i * m.k + j) / scale;
          if (compressed || tensor || real) q = as_source(m.elem, q);
          const uint32_t code = compressed ? encode_e4m3_sat(q) : encode_e4m3_nonsat(q);
          r.codes[static_cast<size_t>(i * m.k + j)] = static_cast<std::byte>((code & 0x7FU) | (m.negative(i * m.k + j) ? 0x80U : 0U));
        }
      }
      if (!compressed || m.elem == Elem::f32) {
        append(r.scales, std::bit_cast<uint32_t>(scale), 4);
      } else {
        append(r.scales, m.elem == Elem::bf16 ? encode_bf16(scale) : encode_f16(scale), 2);
      }
    }
  }
  return r;
}

// The error of a block in a search for scales, as PyTorch adds it up: eight lanes, then those.
float search_error(const Matrix& m, int64_t at, int64_t count, float scale) {
  float lanes[8] = {}, sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float x = m.at(at + i);
    const float quantized = scale == 0 ? 0.0F : decode_e2m1(static_cast<uint8_t>(encode_e2m1(x / scale))) * scale;
    lanes[i % 8] += (x - quantized) * (x - quantized);
  }
  for (const float lane : lanes) sum += lane;
  return sum;
}

// The scale that the search gives a block, before it is cast: `most` is 448 for the sweep, 256 for four over six.
float searched_scale(const Matrix& m, int64_t at, int64_t count, float block, float amax, float most) {
  const float top = amax / 6.0F, unit = top / most;
  std::vector<float> tries;
  if (most == 256) tries = {block, block * 1.5F};
  for (int code = 1; most == 448 && code < 0x7F; ++code) tries.push_back(amax * (decode_e4m3(static_cast<uint8_t>(code)) / 448.0F));
  float best = tries[0], least = INFINITY;
  for (const float t : tries) {
    const float scale = decode_e4m3(encode_e4m3_sat(t / 6.0F / unit)) * unit;
    const float error = search_error(m, at, count, scale);
    if (!(error < least)) continue;
    least = error;
    best = t;
  }
  return (best / 6.0F == 0 ? 1.0F : best / 6.0F) * most / top;
}

Result nvfp4_reference(std::string_view name, const Matrix& m, int64_t group, float amax) {
  Result r;
  const bool compressed = name.ends_with(".llm_compressor");
  const float most = name.starts_with("nvfp4_mse") ? 448 : name.starts_with("nvfp4_four") ? 256 : 0;
  const float divisor = name.starts_with("nvfp4_fp8_stage") ? 448 : most == 256 ? 1536 : 2688;
  if (!compressed && !(amax / divisor > 0)) amax = 6;
  float global = amax / divisor;
  if (compressed) {
    const float bounded = amax < finfo_tiny(m.elem) ? finfo_tiny(m.elem) : amax;
    global = as_source(m.elem, 2688.0F * as_source(m.elem, 1.0F / bounded));
    if (!std::isfinite(global)) global = 1;
  }
  append(r.global, std::bit_cast<uint32_t>(global), 4);
  for (int64_t row = 0; row < m.rows; ++row) {
    uint32_t low = 0;
    for (int64_t j = 0; j < m.k; ++j) {
      if (j % group == 0) {
        const float a = block_amax(m, row, 1, j, group);
        float scale = compressed ? global * as_source(m.elem, a / 6.0F) : a / (6.0F * global);
        if (most > 0) scale = searched_scale(m, row * m.k + j, std::min(group, m.k - j), a, amax, most);
        if (!compressed && scale == 0) scale = 1;
        if (!compressed && scale < 0x1p-9F) scale = 0x1p-9F;
        uint32_t code = encode_e4m3_sat(scale) & 0x7FU;
        if (code == 0) code = 0x20;
        append(r.scales, code, 1);
      }
      const float scale = decode_e4m3(static_cast<uint8_t>(r.scales.back()));
      const float q = m.at(row * m.k + j) / (compressed ? scale / global : scale * global);
      const uint32_t code = (encode_e2m1(q) & 7U) | (q < 0 ? 8U : 0U);
      if (j % 2 == 0) low = code;
      if (j % 2 == 1 || j + 1 == m.k) append(r.codes, j % 2 == 1 ? low | (code << 4) : code, 1);
    }
  }
  return r;
}

Result run(const Recipe& recipe, const Matrix& m, const ir::QuantType& type, float amax, const Result& sizes, Isa isa) {
  // Guards behind every output: a loop must not write past its end.
  constexpr ptrdiff_t guard = 64;
  Result r;
  for (auto [out, like] : {std::pair{&r.codes, &sizes.codes}, {&r.scales, &sizes.scales}, {&r.global, &sizes.global}}) {
    out->assign(like->size() + size_t{guard}, std::byte{0xA5});
  }
  recipe.run({m.data(), m.elem, m.rows, m.k, m.rows, amax, type, r.codes.data(), r.scales.data(), sizes.global.empty() ? nullptr : r.global.data(), isa});
  for (std::vector<std::byte>* out : {&r.codes, &r.scales, &r.global}) {
    EXPECT_EQ(std::count(out->end() - guard, out->end(), std::byte{0xA5}), guard);
    out->erase(out->end() - guard, out->end());
  }
  return r;
}

struct Shape {
  int64_t rows, k;
};

TEST(RecipeIsa, EveryLevelGivesTheReferencesBytes) {
  uint32_t seed = 1;
  int compared = 0;
  for (const Elem elem : {Elem::bf16, Elem::f16, Elem::f32}) {
    for (const Fill fill : {Fill::any_bits, Fill::gauss, Fill::gauss_with_specials, Fill::subnormal, Fill::huge, Fill::with_zero_blocks}) {
      for (const Shape shape : {Shape{1, 1}, {1, 37}, {3, 129}, {130, 160}, {2, 1024}, {2, 1063}, {5, 2080}}) {
        const Matrix m = make(elem, shape.rows, shape.k, fill, seed++);
        const float amax = absmax(m.data(), elem, m.rows * m.k, Isa::generic);
        const float largest = block_amax(m, 0, m.rows, 0, m.k);
        ASSERT_EQ(std::bit_cast<uint32_t>(amax), std::bit_cast<uint32_t>(largest));
        for (const Isa isa : levels()) {
          const float again = absmax(m.data(), elem, m.rows * m.k, isa);
          ASSERT_EQ(std::bit_cast<uint32_t>(again), std::bit_cast<uint32_t>(amax));
        }
        for (const Recipe* recipe : recipes()) {
          for (const ir::Block block : {ir::Block{0, 0}, {1, 0}, {1, 16}, {1, 32}, {1, 96}, {128, 128}, {64, 32}}) {
            const bool fp4 = recipe->name.starts_with("nvfp4");
            const ir::QuantType type{fp4 ? Elem::e2m1 : Elem::e4m3, fp4 ? ir::ScaleValues::e4m3 : ir::ScaleValues::any, block, ir::Zero::none};
            if (!recipe->makes(type)) continue;
            if (recipe->name == "nvfp4_mse.modelopt" && shape.rows * shape.k > 512) continue;  // the reference tries every scale
            // An amax below the data's own makes quotients overflow.
            for (const float a : {amax, amax / 3, 0.0F}) {
              if (!recipe->needs_amax && a != 0.0F) continue;
              const Result want = fp4 ? nvfp4_reference(recipe->name, m, block.cols, a) : fp8_reference(recipe->name, m, block, a);
              for (const Isa isa : levels()) {
                ASSERT_TRUE(run(*recipe, m, type, a, want, isa) == want)
                    << recipe->name << " {" << block.rows << "," << block.cols << "} " << info(elem).name << " fill " << static_cast<int>(fill) << " "
                    << shape.rows << "x" << shape.k << " amax " << a << " isa " << static_cast<int>(isa);
                ++compared;
              }
            }
          }
        }
      }
    }
  }
  EXPECT_GT(compared, 1000);
}

// Blocks of rows that start at row_multiple() give together what the whole matrix gives.
TEST(RecipeIsa, RowBlocksConcatenate) {
  const Matrix whole = make(Elem::bf16, 300, 100, Fill::gauss_with_specials, 99);
  for (const Recipe* recipe : recipes()) {
    for (const ir::Block block : {ir::Block{0, 0}, {1, 0}, {1, 16}, {128, 128}, {96, 32}}) {
      const bool fp4 = recipe->name.starts_with("nvfp4");
      const ir::QuantType type{fp4 ? Elem::e2m1 : Elem::e4m3, fp4 ? ir::ScaleValues::e4m3 : ir::ScaleValues::any, block, ir::Zero::none};
      if (!recipe->makes(type) || block.rows == 0) continue;
      const Result want = fp4 ? nvfp4_reference(recipe->name, whole, block.cols, 3) : fp8_reference(recipe->name, whole, block, 3);
      const int64_t step = row_multiple(*recipe, type);
      Result got;
      for (int64_t row = 0; row < whole.rows; row += step) {
        Matrix part{whole.elem, std::min(step, whole.rows - row), whole.k, {}, std::vector<std::byte>(1)};
        std::for_each(whole.data() + row * whole.k * 2, whole.data() + (row + part.rows) * whole.k * 2, [&part](std::byte b) { part.bytes.push_back(b); });
        part.bits.assign(whole.bits.begin() + row * whole.k, whole.bits.begin() + (row + part.rows) * whole.k);
        Result sizes = fp4 ? nvfp4_reference(recipe->name, part, block.cols, 3) : fp8_reference(recipe->name, part, block, 3);
        const Result r = run(*recipe, part, type, recipe->needs_amax ? 3.0F : 0.0F, sizes, Isa::generic);
        got.codes.insert(got.codes.end(), r.codes.begin(), r.codes.end());
        got.scales.insert(got.scales.end(), r.scales.begin(), r.scales.end());
        got.global = r.global;
      }
      EXPECT_TRUE(got == want) << recipe->name;
    }
  }
}

// What stands for divisions in the recipes' loops. Every significand of an element, and every 61st of a divisor; where the divisor is an element, all.
template <class S>
void expect_quotients(uint32_t dropped) {
  int64_t wrong = 0;
  const auto significand = [](uint32_t bits) { return std::bit_cast<float>(0x3F800000U | bits); };
  const uint32_t step = uint32_t{1} << dropped, all = uint32_t{1} << 23;
  for (uint32_t d = 0; d < all; d += d % step == 0 ? 1 : 61) {
    const float divisor = significand(d), inverse = 1 / divisor;
    for (uint32_t x = (d / 61 % 8) * step; x < all; x += 8 * step) wrong += quotient(significand(x), divisor, inverse) == significand(x) / divisor ? 0 : 1;
  }
  for (uint32_t d = 0; d < all; d += step) {
    const float divisor = significand(d), inverse = 1 / divisor;
    for (uint32_t x = 0; x < all; x += step) {
      wrong += nearest_quotient<S>(significand(x), inverse) == round_scale<S>(significand(x) / divisor) ? 0 : 1;
    }
  }
  EXPECT_EQ(wrong, 0) << dropped;
}

TEST(RecipeIsa, QuotientsAreThoseOfDivision) {
  expect_quotients<Bf16>(16);
  expect_quotients<F16>(13);
}

// Every element up to the largest of its row, which has every significand that an element has (in binary16 every 16th).
TEST(RecipeIsa, Fp8CodesAreThoseOfDivisionForEveryElement) {
  for (const Elem elem : {Elem::bf16, Elem::f16}) {
    Matrix m{elem, elem == Elem::bf16 ? 128 : 64, elem == Elem::bf16 ? 1 << 16 : 1 << 15, {}, std::vector<std::byte>(1)};
    for (int64_t r = 0; r < m.rows; ++r) {
      const int64_t exponent = elem == Elem::f16 ? 15 + r % 8 : std::array{40, 75, 77, 122, 127, 133, 145, 147}[static_cast<size_t>(r % 8)];
      const int64_t most = elem == Elem::f16 ? (exponent << 10) + 16 * r : (exponent << 7) + r;
      for (int64_t j = 0; j < m.k; ++j) {
        const int64_t magnitude = most - j / 2;
        m.bits.push_back(static_cast<uint32_t>((magnitude < 0 ? 0 : magnitude) | (j % 2 == 0 ? 0 : 0x8000)));
        for (int byte = 0; byte < 2; ++byte) m.bytes.push_back(static_cast<std::byte>(m.bits.back() >> (8 * byte)));
      }
    }
    const ir::QuantType type{Elem::e4m3, ir::ScaleValues::any, {1, 0}, ir::Zero::none};
    for (const char* name : {"fp8_channel.modelopt", "fp8_channel.llm_compressor"}) {
      const Result want = fp8_reference(name, m, type.block, 0);
      for (const Isa isa : levels()) EXPECT_TRUE(run(*find_recipe(name), m, type, 0, want, isa) == want) << name << ' ' << info(elem).name;
    }
  }
}

// Codes are those of a division, quotients near ties and at the ends of the range of scales too.
TEST(RecipeIsa, IntegersAreRoundedQuotients) {
  constexpr int64_t rows = 400, k = 200;
  std::mt19937 random(3);
  for (const Elem source : {Elem::bf16, Elem::f16, Elem::f32}) {
    std::vector<float> x(rows * k);
    std::vector<std::byte> weights(x.size() * static_cast<size_t>(bits(source)) / 8), codes(x.size()), scales(rows * 4);
    const bool wide = source != Elem::f16;
    for (int64_t r = 0; r < rows; ++r) {
      const float size = wide ? std::ldexp(1.0F + static_cast<float>(random() % 1000) / 1000, r % 8 == 0 ? static_cast<int>(random() % 240) - 120 : -5) : 0.03F;
      for (int64_t j = 0; j < k; ++j) {
        // Half of them on multiples of half a step, as exactly as the source can say it.
        const auto step = static_cast<float>(static_cast<int>(random() % 511) - 255) / 2;
        const float u = static_cast<float>(random() % 65536) / 32768 - 1;
        x[static_cast<size_t>(r * k + j)] = j == 0 ? size : size * (random() % 2 == 0 ? step / 127.5F : u);
      }
    }
    for (size_t i = 0; i < x.size(); ++i) {
      const uint32_t b = std::bit_cast<uint32_t>(x[i]);
      const uint16_t half = source == Elem::f16 ? encode_f16(x[i]) : encode_bf16(x[i]);
      std::memcpy(weights.data() + i * static_cast<size_t>(bits(source)) / 8, source == Elem::f32 ? static_cast<const void*>(&b) : &half,
                  static_cast<size_t>(bits(source)) / 8);
    }
    const auto at = [&](const std::byte* from, size_t i, Elem elem) {
      uint32_t b = 0;
      std::memcpy(&b, from + i * static_cast<size_t>(bits(elem)) / 8, static_cast<size_t>(bits(elem)) / 8);
      return elem == Elem::f32 ? std::bit_cast<float>(b) : elem == Elem::f16 ? decode_f16(static_cast<uint16_t>(b)) : decode_bf16(static_cast<uint16_t>(b));
    };
    for (const char* name : {"int_rows.modelopt", "int_rows.llm_compressor"}) {
      const Recipe* r = find_recipe(name);
      const Elem scale_elem = r->scale_elem(source);
      for (const Isa isa : levels()) {
        r->run({weights.data(), source, rows, k, rows, 0, ir::parse_scheme("int8_channel")->weight, codes.data(), scales.data(), nullptr, isa});
        int64_t wrong = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          const float scale = at(scales.data(), i / k, scale_elem), quotient = at(weights.data(), i, source) / scale;
          const float rounded = r->numerics == Numerics::modelopt || source == Elem::f32 ? quotient
                                : source == Elem::f16                                    ? decode_f16(encode_f16(quotient))
                                                                                         : decode_bf16(encode_bf16(quotient));
          wrong += static_cast<int8_t>(codes[i]) != std::nearbyint(std::clamp(rounded, -128.0F, 127.0F)) ? 1 : 0;
        }
        EXPECT_EQ(wrong, 0) << name << ", " << bits(source) << " bits";
      }
    }
  }
}

}  // namespace
}  // namespace qb::recipe
