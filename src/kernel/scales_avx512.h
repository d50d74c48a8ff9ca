// Sixteen scales of one byte each as float32 numbers, by AVX-512. As panel_body.h, compiled for the instruction set of the including file, which defines QB_KI.
#pragma once

#include <cstddef>
#include <cstring>

namespace qb::kernel {
namespace {

// E8M0: 0 is 2^-127 and 255 is NaN: both have the fraction's first bit, where the others have none.
QB_KI __m512 powers_avx512(const std::byte* bytes) {
  const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  const __m512i s = _mm512_slli_epi32(b, 23);
  const auto ends = static_cast<__mmask16>(_mm512_testn_epi32_mask(b, b) | _mm512_cmpeq_epi32_mask(b, _mm512_set1_epi32(255)));
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(s, ends, s, _mm512_set1_epi32(0x00400000)));
}

// Two times sixteen E4M3 numbers, in units of e4m3_unit_avx512: read as binary16 with the exponent's fields aligned, E4M3 is 2^8 too small, also where it is
// subnormal; only its NaN has to be named.
constexpr float e4m3_unit_avx512 = 256;
QB_KI void two_e4m3_avx512(const std::byte* bytes, __m512* s) {
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  const __m512i half = _mm512_and_si512(_mm512_slli_epi16(_mm512_cvtepi8_epi16(b), 7), _mm512_set1_epi16(static_cast<int16_t>(0xBF80)));
  const __mmask32 number = _mm256_cmpneq_epi8_mask(_mm256_or_si256(b, _mm256_set1_epi8(-128)), _mm256_set1_epi8(-1));
  const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
  s[0] = _mm512_mask_cvtph_ps(nan, static_cast<__mmask16>(number), _mm512_castsi512_si256(half));
  s[1] = _mm512_mask_cvtph_ps(nan, static_cast<__mmask16>(number >> 16), _mm512_extracti64x4_epi64(half, 1));
}
QB_KI __m512 e4m3_avx512(const std::byte* bytes) {
  std::byte padded[32] = {};
  std::memcpy(padded, bytes, 16);
  __m512 s[2];
  two_e4m3_avx512(padded, s);
  return _mm512_mul_ps(s[0], _mm512_set1_ps(e4m3_unit_avx512));
}

}  // namespace
}  // namespace qb::kernel
