#include "num/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace qb {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

uint32_t bits_of(float x) {
  return std::bit_cast<uint32_t>(x);
}
float from_bits(uint32_t u) {
  return std::bit_cast<float>(u);
}

// An independent description of a format: the value of every magnitude code, in double, by the textbook formula.
struct Format {
  int mant, bias;
  uint32_t max_code;  // largest finite magnitude code
  double value(uint32_t code) const {
    const int e = static_cast<int>(code >> mant);
    const double m = static_cast<double>(code & ((1U << mant) - 1U)) / static_cast<double>(1U << mant);
    return e == 0 ? std::ldexp(m, 1 - bias) : std::ldexp(1.0 + m, e - bias);
  }
  // The nearest code of |x|, ties to even; one step beyond max_code where an unbounded exponent would round there.
  uint32_t nearest(double x) const {
    uint32_t lo = 0, hi = max_code + 1;
    if (x >= value(hi)) return hi;
    while (hi - lo > 1) {  // value(lo) <= x < value(hi)
      const uint32_t mid = (lo + hi) / 2;
      (value(mid) <= x ? lo : hi) = mid;
    }
    const double below = x - value(lo), above = value(hi) - x;
    if (below != above) return below < above ? lo : hi;
    return (lo & 1U) == 0 ? lo : hi;
  }
};
constexpr Format e4m3{3, 7, 0x7E}, e5m2{2, 15, 0x7B}, e2m1{1, 1, 7}, f16{10, 15, 0x7BFF}, bf16{7, 127, 0x7F7F};

// All bfloat16 values, and for every boundary between adjacent codes the three floats around it; both signs.
std::vector<float> inputs_for(const Format& f) {
  std::vector<float> v;
  for (uint32_t u = 0; u < 0x10000; ++u) v.push_back(from_bits(u << 16));
  auto around = [&v](double x) {
    const float c = static_cast<float>(x);
    for (const float y : {std::nextafter(c, 0.0F), c, std::nextafter(c, inf)}) {
      v.push_back(y);
      v.push_back(-y);
    }
  };
  for (uint32_t c = 0; c <= f.max_code; ++c) {
    around(f.value(c));
    around((f.value(c) + f.value(c + 1)) / 2);
  }
  for (const float y : {inf, nan, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max()}) {
    v.push_back(y);
    v.push_back(-y);
  }
  return v;
}

TEST(Codec, DecodersGiveTheTextbookValues) {
  for (uint32_t c = 0; c < 256; ++c) {
    const uint8_t code = static_cast<uint8_t>(c);
    const double sign = c >= 128 ? -1 : 1;
    const uint32_t m = c & 0x7F;
    if (m == 0x7F) {
      EXPECT_TRUE(std::isnan(decode_e4m3(code)));
    } else {
      EXPECT_EQ(decode_e4m3(code), sign * e4m3.value(m)) << c;
    }
    if (m > 0x7C) {
      EXPECT_TRUE(std::isnan(decode_e5m2(code)));
    } else if (m == 0x7C) {
      EXPECT_EQ(decode_e5m2(code), sign * static_cast<double>(inf));
    } else {
      EXPECT_EQ(decode_e5m2(code), sign * e5m2.value(m)) << c;
    }
    EXPECT_EQ(std::signbit(decode_e4m3(code)), c >= 128);
    EXPECT_EQ(std::signbit(decode_e5m2(code)), c >= 128);
    if (c == 255) {
      EXPECT_TRUE(std::isnan(decode_e8m0(code)));
    } else {
      EXPECT_EQ(decode_e8m0(code), std::ldexp(1.0, static_cast<int>(c) - 127)) << c;
    }
  }
  const double fp4[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (uint32_t c = 0; c < 256; ++c) {
    const float v = decode_e2m1(static_cast<uint8_t>(c));
    EXPECT_EQ(std::fabs(v), fp4[c & 7]) << c;
    EXPECT_EQ(std::signbit(v), (c & 8) != 0) << c;
  }
}

TEST(Codec, SixteenBitDecodersGiveTheTextbookValues) {
  for (uint32_t u = 0; u < 0x10000; ++u) {
    const uint16_t code = static_cast<uint16_t>(u);
    const double sign = u >= 0x8000 ? -1 : 1;
    const uint32_t m = u & 0x7FFF;
    if (m > 0x7C00) {
      ASSERT_TRUE(std::isnan(decode_f16(code))) << u;
    } else {
      ASSERT_EQ(decode_f16(code), m == 0x7C00 ? sign * static_cast<double>(inf) : sign * f16.value(m)) << u;
    }
    if (m > 0x7F80) {
      ASSERT_TRUE(std::isnan(decode_bf16(code))) << u;
    } else {
      ASSERT_EQ(decode_bf16(code), m == 0x7F80 ? sign * static_cast<double>(inf) : sign * bf16.value(m)) << u;
    }
    ASSERT_EQ(std::signbit(decode_f16(code)), u >= 0x8000);
  }
}

TEST(Codec, EveryCodeSurvivesDecodeThenEncode) {
  for (uint32_t c = 0; c < 256; ++c) {
    const uint8_t code = static_cast<uint8_t>(c);
    EXPECT_EQ(encode_e4m3_sat(decode_e4m3(code)), code);
    EXPECT_EQ(encode_e4m3_nonsat(decode_e4m3(code)), code);
    EXPECT_EQ(encode_e2m1(decode_e2m1(code)), code & 15U);
  }
  for (uint32_t u = 0; u < 0x10000; ++u) {
    const uint16_t code = static_cast<uint16_t>(u);
    const uint16_t again = encode_f16(decode_f16(code));
    ASSERT_TRUE((u & 0x7FFF) > 0x7C00 ? std::isnan(decode_f16(again)) : again == code) << u;
    const bool is_nan = (u & 0x7FFF) > 0x7F80;
    ASSERT_EQ(encode_bf16(decode_bf16(code)), is_nan ? code | 0x40U : code);
  }
}

TEST(Codec, E4m3RoundsToNearestEven) {
  for (const float x : inputs_for(e4m3)) {
    const uint32_t sign = std::signbit(x) ? 0x80U : 0U;
    const double a = std::fabs(static_cast<double>(x));
    const uint32_t near = std::isnan(x) ? 0x7F : e4m3.nearest(a);
    ASSERT_EQ(encode_e4m3_sat(x), sign | (std::isnan(x) ? 0x7F : std::min<uint32_t>(near, 0x7E))) << x;
    ASSERT_EQ(encode_e4m3_nonsat(x), sign | (a > 464 ? 0x7F : near)) << x;
  }
}

TEST(Codec, E2m1RoundsToNearestEven) {
  for (const float x : inputs_for(e2m1)) {
    const uint32_t sign = std::signbit(x) ? 8U : 0U;
    const uint32_t near = std::isnan(x) ? 7 : std::min<uint32_t>(e2m1.nearest(std::fabs(static_cast<double>(x))), 7);
    ASSERT_EQ(encode_e2m1(x), sign | near) << x;
  }
}

TEST(Codec, SixteenBitEncodersRoundToNearestEven) {
  for (const float x : inputs_for(f16)) {
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(decode_f16(encode_f16(x))));
      continue;
    }
    ASSERT_EQ(encode_f16(x), (std::signbit(x) ? 0x8000U : 0U) | f16.nearest(std::fabs(static_cast<double>(x)))) << x;
  }
  for (const float x : inputs_for(bf16)) {
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(decode_bf16(encode_bf16(x))));
      continue;
    }
    ASSERT_EQ(encode_bf16(x), (std::signbit(x) ? 0x8000U : 0U) | bf16.nearest(std::fabs(static_cast<double>(x)))) << x;
  }
  // NaN whose payload stands in the half that bfloat16 drops.
  EXPECT_TRUE(std::isnan(decode_bf16(encode_bf16(from_bits(0x7F800001U)))));
  EXPECT_TRUE(std::isnan(decode_bf16(encode_bf16(from_bits(0xFFFFFFFFU)))));
}

TEST(Codec, GoldenVectors) {
  EXPECT_EQ(encode_e4m3_nonsat(448), 0x7E);
  EXPECT_EQ(encode_e4m3_nonsat(464), 0x7E);
  EXPECT_EQ(encode_e4m3_nonsat(464.1F), 0x7F);
  EXPECT_EQ(encode_e4m3_nonsat(480), 0x7F);
  EXPECT_EQ(encode_e4m3_nonsat(-inf), 0xFF);
  EXPECT_EQ(encode_e4m3_sat(480), 0x7E);
  EXPECT_EQ(encode_e4m3_sat(-inf), 0xFE);
  EXPECT_EQ(encode_e4m3_sat(-nan), 0xFF);
  EXPECT_EQ(encode_e4m3_sat(0x1p-9F), 0x01);
  EXPECT_EQ(encode_e4m3_sat(0x1p-10F), 0x00);
  EXPECT_EQ(encode_e4m3_sat(0x1.8p-10F), 0x01);
  EXPECT_EQ(encode_e4m3_sat(1), 0x38);
  EXPECT_EQ(encode_e4m3_sat(1.0625F), 0x38);
  EXPECT_EQ(encode_e4m3_sat(1.1875F), 0x3A);
  EXPECT_EQ(encode_e4m3_sat(17), 0x58);
  EXPECT_EQ(encode_e4m3_sat(240), 0x77);
  EXPECT_EQ(encode_e4m3_sat(-0.0F), 0x80);
  const float ties[] = {0.25F, 0.75F, 1.25F, 1.75F, 2.5F, 3.5F, 5.0F};
  const uint8_t even[] = {0, 2, 2, 4, 4, 6, 6};
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(encode_e2m1(ties[i]), even[i]);
    EXPECT_EQ(encode_e2m1(std::nextafter(ties[i], 9.0F)), even[i] + (even[i] == i ? 1 : 0));
    EXPECT_EQ(encode_e2m1(std::nextafter(ties[i], 0.0F)), i);
  }
  EXPECT_EQ(encode_e2m1(inf), 7);
  EXPECT_EQ(encode_e2m1(-0.1F), 8);
  EXPECT_EQ(bits_of(decode_e8m0(0)), 0x00400000U);
  EXPECT_EQ(decode_e8m0(127), 1.0F);
}

}  // namespace
}  // namespace qb
