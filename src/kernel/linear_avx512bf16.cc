// Panel kernels for AVX-512 with BF16 dot products and byte permutations (Zen 4, Sapphire Rapids).
//
// vdpbf16ps is fma(a1, b1, fma(a0, b0, c)) with subnormal inputs and results taken for zero (checked on two million random operands on Zen 4; the manuals of
// both makers say the same). E4M3 becomes bfloat16 by two 128-byte tables (upper and lower byte of the magnitude) and the code's sign: exact for all 254
// numbers, NaN stays. E2M1 becomes bfloat16 by one table of 16 words that stands twice in a register, so that the index's fifth bit, which belongs to the
// neighbour, does not matter: no masks.
#include "kernel/panels.h"

#if defined(__x86_64__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's headers make undefined vectors that way, and warn of it (GCC bug 105593)
#endif
#include <immintrin.h>

#include <array>

#define QB_K __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")))
#define QB_KI QB_K __attribute__((always_inline)) inline

#include "kernel/panel_body.h"

namespace qb::kernel {
namespace {

struct alignas(64) Tables {
  std::array<uint8_t, 128> high{}, low{};
  std::array<uint16_t, 32> e2m1{};
};
const Tables tables = [] {
  Tables t;
  for (size_t c = 0; c < 128; ++c) {
    const uint16_t b = encode_bf16(decode_e4m3(static_cast<uint8_t>(c)));
    t.high[c] = static_cast<uint8_t>(b >> 8);
    t.low[c] = static_cast<uint8_t>(b & 0xFFU);
  }
  for (size_t c = 0; c < 32; ++c) t.e2m1[c] = encode_bf16(decode_e2m1(c & 15U));
  return t;
}();

struct Bf16Dot {
  using X = uint16_t;
  using Acc = __m512;
  using Operand = __m512i;
  static constexpr int few = 8, mr = 6, nr = 4;
  // Zen 4 at 3.66 GHz, one core, 256 x 1024 weights in the second-level cache, processor time: 112 G products a second for 192 tokens; for one token 45.7 G
  // (bf16, 91 GB/s), 36.3 G (fp8, 36 GB/s), 51.6 G (nvfp4, 29 GB/s). Not tried: Intel's parts.
  static constexpr Rates rates{30.6, {21, 14.6, 26}, 10, few};

  QB_KI static Acc zero() { return _mm512_setzero_ps(); }
  QB_KI static Acc load(const float* p) { return _mm512_loadu_ps(p); }
  QB_KI static void store(float* p, Acc a) { _mm512_storeu_ps(p, a); }
  QB_KI static Acc splat(float x) { return _mm512_set1_ps(x); }
  QB_KI static Acc add(Acc a, Acc b) { return _mm512_add_ps(a, b); }
  QB_KI static Acc mul_add(Acc a, Acc b, Acc c) { return _mm512_fmadd_ps(a, b, c); }
  QB_KI static Operand bf16(const std::byte* line) { return _mm512_loadu_si512(line); }
  QB_KI static void store_bf16(std::byte* line, Operand o) { _mm512_storeu_si512(line, o); }
  QB_KI static Acc dot(Acc a, Operand o, const X* x) {
    int pair;
    std::memcpy(&pair, x, sizeof pair);
    return _mm512_dpbf16_ps(a, (__m512bh)o, (__m512bh)_mm512_set1_epi32(pair));
  }
  QB_KI static void fp8(const std::byte* line, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line);
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(tables.low.data()), v, _mm512_load_si512(tables.low.data() + 64));
    __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(tables.high.data()), v, _mm512_load_si512(tables.high.data() + 64));
    high = _mm512_ternarylogic_epi32(high, v, _mm512_set1_epi8(-128), 0xF8);  // high | (v & sign)
    o[0] = _mm512_unpacklo_epi8(low, high);
    o[1] = _mm512_unpackhi_epi8(low, high);
  }
  QB_KI static void fp4(const std::byte* line, Operand* o) {
    const __m512i v = _mm512_loadu_si512(line), t = _mm512_load_si512(tables.e2m1.data());
    o[0] = _mm512_permutexvar_epi16(v, t);
    o[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), t);
    o[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), t);
    o[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), t);
  }
  // Read as binary16 with the exponent's fields aligned, E4M3 is 2^8 too small, also where it is subnormal; only its NaN has to be named.
  static constexpr float scale_unit = 256;
  QB_KI static void two_scales(const std::byte* bytes, Acc* s) {
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    const __m512i half = _mm512_and_si512(_mm512_slli_epi16(_mm512_cvtepi8_epi16(b), 7), _mm512_set1_epi16(static_cast<int16_t>(0xBF80)));
    const __mmask32 number = _mm256_cmpneq_epi8_mask(_mm256_or_si256(b, _mm256_set1_epi8(-128)), _mm256_set1_epi8(-1));
    const Acc nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    s[0] = _mm512_mask_cvtph_ps(nan, static_cast<__mmask16>(number), _mm512_castsi512_si256(half));
    s[1] = _mm512_mask_cvtph_ps(nan, static_cast<__mmask16>(number >> 16), _mm512_extracti64x4_epi64(half, 1));
  }
  QB_KI static Acc scales(const std::byte* bytes) {
    std::byte padded[32] = {};
    std::memcpy(padded, bytes, 16);
    Acc s[2];
    two_scales(padded, s);
    return _mm512_mul_ps(s[0], splat(scale_unit));
  }
  QB_KI static Operand times(Operand o, Acc scale) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
    const __m512i even = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(o, 16)), scale));
    const __m512i odd = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_and_si512(o, upper)), scale));
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(even, 16), odd, upper, 0xF8);  // even >> 16 | (odd & upper)
  }
};

constexpr host::Feature needs = host::Feature::avx2 | host::Feature::avx512 | host::Feature::avx512_bf16;

}  // namespace

QB_KERNEL(linear_bf16_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::bf16>("linear_bf16_bf16_avx512bf16", needs);
QB_KERNEL(linear_fp8_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::fp8>("linear_fp8_bf16_avx512bf16", needs);
QB_KERNEL(linear_nvfp4_bf16_avx512bf16) = panel_kernel<Bf16Dot, Weights::nvfp4>("linear_nvfp4_bf16_avx512bf16", needs);

}  // namespace qb::kernel
#endif
