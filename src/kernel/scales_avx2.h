// Eight scales of one byte each as float32 numbers, by AVX2. As panel_body.h, compiled for the instruction set of the including file, which defines QB_KI.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qb::kernel {
namespace {

// The code in the top byte of each lane: its magnitude at the place of float32's exponent and fraction is 2^120 too small, also where it is subnormal.
QB_KI __m256 e4m3_avx2(__m256i top) {
  const __m256i most = _mm256_set1_epi32(0x07F00000), magnitude = _mm256_and_si256(_mm256_srli_epi32(top, 4), most);
  const __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi32(magnitude, most), _mm256_set1_epi32(0x7FC00000));
  const __m256i sign = _mm256_and_si256(top, _mm256_set1_epi32(INT32_MIN));
  const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(0x1p120F));
  return _mm256_or_ps(value, _mm256_castsi256_ps(_mm256_or_si256(nan, sign)));
}
QB_KI __m256 scales_avx2(const std::byte* bytes) {
  return e4m3_avx2(_mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))), 24));
}

// E8M0: 0 is 2^-127 and 255 is NaN: both have the fraction's first bit, where the others have none.
QB_KI __m256 powers_avx2(const std::byte* bytes) {
  const __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  const __m256i ends = _mm256_or_si256(_mm256_cmpeq_epi32(b, _mm256_setzero_si256()), _mm256_cmpeq_epi32(b, _mm256_set1_epi32(255)));
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_slli_epi32(b, 23), _mm256_and_si256(ends, _mm256_set1_epi32(0x00400000))));
}

}  // namespace
}  // namespace qb::kernel
