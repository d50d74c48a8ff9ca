// Exact scalar codecs: the ground truth for every faster path.
//
// Sources: OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2), OCP Microscaling Formats 1.0 (E2M1, E8M0), IEEE 754 binary16; bfloat16 is the upper
// half of binary32. Rounding is to nearest, ties to even, in every encoder.
#pragma once

#include <cstdint>

namespace qb {

float decode_e4m3(uint8_t code);  // 0x7F and 0xFF are NaN; no infinities
float decode_e5m2(uint8_t code);
float decode_e2m1(uint8_t nibble);  // low four bits; 0x8 is -0
float decode_e8m0(uint8_t code);    // 2^(code-127); 0 is the subnormal 2^-127; 255 is NaN
float decode_f16(uint16_t bits);
float decode_bf16(uint16_t bits);

// Saturating: |x| above 448 (infinities too) gives +-448; NaN gives 0x7F with x's sign.
uint8_t encode_e4m3_sat(float x);
// As PyTorch casts: |x| > 464 gives NaN (0x7F with x's sign), the tie 464 gives 448.
uint8_t encode_e4m3_nonsat(float x);
// Saturating at 6; the sign bit is x's, also for results of zero; NaN gives 0x7 with x's sign.
uint8_t encode_e2m1(float x);
uint16_t encode_f16(float x);   // overflow gives infinity; NaN stays NaN
uint16_t encode_bf16(float x);  // likewise

// x rounded to bfloat16 (or float16) and widened again.
inline float round_bf16(float x) {
  return decode_bf16(encode_bf16(x));
}
inline float round_f16(float x) {
  return decode_f16(encode_f16(x));
}

}  // namespace qb
