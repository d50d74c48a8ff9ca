#include "num/codec.h"

#include <bit>
#include <limits>

#include "num/minifloat.h"

namespace qb {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

uint32_t magnitude_of(float x) {
  return std::bit_cast<uint32_t>(x) & f32_abs_mask;
}
bool negative(float x) {
  return (std::bit_cast<uint32_t>(x) >> 31) != 0;
}
float with_sign(float magnitude, bool minus) {
  return minus ? -magnitude : magnitude;
}

}  // namespace

float decode_e4m3(uint8_t code) {
  const uint32_t m = code & 0x7FU;
  return with_sign(m == 0x7F ? nan : magnitude_value<3, 7>(m), (code & 0x80U) != 0);
}

float decode_e5m2(uint8_t code) {
  const uint32_t m = code & 0x7FU;
  const float value = m > 0x7C ? nan : m == 0x7C ? infinity : magnitude_value<2, 15>(m);
  return with_sign(value, (code & 0x80U) != 0);
}

float decode_e2m1(uint8_t nibble) {
  return with_sign(magnitude_value<1, 1>(nibble & 7U), (nibble & 8U) != 0);
}

float decode_e8m0(uint8_t code) {
  if (code == 255) return nan;
  // 2^-127 is subnormal in binary32: its exponent field alone would say zero.
  return std::bit_cast<float>(code == 0 ? 0x00400000U : uint32_t{code} << 23);
}

float decode_f16(uint16_t bits) {
  return with_sign(f16_value(bits & 0x7FFFU), (bits & 0x8000U) != 0);
}

float decode_bf16(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

uint8_t encode_e4m3_sat(float x) {
  const uint32_t m = magnitude_of(x);
  const uint32_t code = m > f32_inf_bits ? 0x7FU : round_magnitude<3, 7>(m, 448.0F);
  return static_cast<uint8_t>(code | (negative(x) ? 0x80U : 0U));
}

uint8_t encode_e4m3_nonsat(float x) {
  const uint32_t code = round_magnitude<3, 7>(magnitude_of(x), 480.0F);  // 480 would be the value of 0x7F
  return static_cast<uint8_t>(code | (negative(x) ? 0x80U : 0U));
}

uint8_t encode_e2m1(float x) {
  return static_cast<uint8_t>(round_magnitude<1, 1>(magnitude_of(x), 6.0F) | (negative(x) ? 8U : 0U));
}

uint16_t encode_f16(float x) {
  const uint32_t m = magnitude_of(x);
  const uint32_t code = m > f32_inf_bits ? 0x7E00U : round_magnitude<10, 15>(m, 65536.0F);  // 65536 would be the value of infinity's code
  return static_cast<uint16_t>(code | (negative(x) ? 0x8000U : 0U));
}

uint16_t encode_bf16(float x) {
  return bf16_code(x);
}

}  // namespace qb
