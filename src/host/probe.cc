#include "host/probe.h"

#include <cstring>

#include "recipe/loops.h"

#if defined(__x86_64__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's headers make undefined vectors that way, and warn of it (GCC bug 105593)
#endif
#include <immintrin.h>

#include "host/tiles.h"
#endif

#define QB_UNROLL _Pragma("GCC unroll 16")

namespace qb::host {
namespace {

constexpr int64_t step = 256;  // bytes of one turn
constexpr int sums = 12;       // more than latency times rate of the multiply-adds of any processor known
volatile float sink;

QB_INLINE uint64_t word_at(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

struct Read {
  static QB_INLINE uint64_t run(const std::byte* p, int64_t bytes) {
    uint64_t seen[step / 8] = {};
    for (int64_t i = 0; i + step <= bytes; i += step) {
      // All lines of a turn are asked for before the first is needed: on Zen 4 faster than no prefetch, and than one further ahead.
      for (int64_t j = 0; j < step; j += 64) __builtin_prefetch(p + i + j);
      for (int64_t j = 0; j < step / 8; ++j) seen[j] |= word_at(p + i + 8 * j);
    }
    uint64_t all = 0;
    for (const uint64_t word : seen) all |= word;
    return all;
  }
};

double generic_f32(int64_t rounds) {
  float t[sums * 4];
  for (float& s : t) s = sink;  // not equal, as far as the compiler knows: or one sum would be enough
  const float x = sink;
  for (int64_t r = 0; r < rounds; ++r)
    for (float& s : t) s += x * x;
  for (const float s : t) sink = s;
  return static_cast<double>(rounds) * sums * 4;
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) double avx2_f32(int64_t rounds) {
  __m256 t[sums];
  const __m256 x = _mm256_set1_ps(sink);
  QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm256_set1_ps(sink);
  for (int64_t r = 0; r < rounds; ++r) {
    QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm256_fmadd_ps(x, x, t[i]);
  }
  QB_UNROLL for (int i = 0; i < sums; ++i) sink = _mm256_cvtss_f32(t[i]);
  return static_cast<double>(rounds) * sums * 8;
}

__attribute__((target("avx512f"))) double avx512_f32(int64_t rounds) {
  __m512 t[sums];
  const __m512 x = _mm512_set1_ps(sink);
  QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm512_set1_ps(sink);
  for (int64_t r = 0; r < rounds; ++r) {
    QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm512_fmadd_ps(x, x, t[i]);
  }
  QB_UNROLL for (int i = 0; i < sums; ++i) sink = _mm512_cvtss_f32(t[i]);
  return static_cast<double>(rounds) * sums * 16;
}

__attribute__((target("avx512f,avx512bf16"))) double avx512_bf16(int64_t rounds) {
  __m512 t[sums];
  const __m512i x = _mm512_castps_si512(_mm512_set1_ps(sink));
  QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm512_set1_ps(sink);
  for (int64_t r = 0; r < rounds; ++r) {
    QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm512_dpbf16_ps(t[i], (__m512bh)x, (__m512bh)x);
  }
  QB_UNROLL for (int i = 0; i < sums; ++i) sink = _mm512_cvtss_f32(t[i]);
  return static_cast<double>(rounds) * sums * 32;
}

__attribute__((target("avx512f,avx512vnni"))) double vnni_int8(int64_t rounds) {
  __m512i t[sums];
  const __m512i x = _mm512_castps_si512(_mm512_set1_ps(sink));
  QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm512_castps_si512(_mm512_set1_ps(sink));
  for (int64_t r = 0; r < rounds; ++r) {
    QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm512_dpbusd_epi32(t[i], x, x);
  }
  QB_UNROLL for (int i = 0; i < sums; ++i) sink = _mm512_cvtss_f32(_mm512_castsi512_ps(t[i]));
  return static_cast<double>(rounds) * sums * 64;
}

__attribute__((target("avx2"))) double avx2_int8(int64_t rounds) {
  __m256i t[sums];
  __m256i x = _mm256_castps_si256(_mm256_set1_ps(sink));
  QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm256_castps_si256(_mm256_set1_ps(sink));
  for (int64_t r = 0; r < rounds; ++r) {
    __asm__("" : "+x"(x));  // not the same product in every round, as far as the compiler knows
    QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm256_add_epi32(t[i], _mm256_madd_epi16(x, t[i]));
  }
  QB_UNROLL for (int i = 0; i < sums; ++i) sink = _mm256_cvtss_f32(_mm256_castsi256_ps(t[i]));
  return static_cast<double>(rounds) * sums * 16;
}

__attribute__((target("avx2,avxvnni"))) double avx_vnni_int8(int64_t rounds) {
  __m256i t[sums];
  const __m256i x = _mm256_castps_si256(_mm256_set1_ps(sink));
  QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm256_castps_si256(_mm256_set1_ps(sink));
  for (int64_t r = 0; r < rounds; ++r) {
    QB_UNROLL for (int i = 0; i < sums; ++i) t[i] = _mm256_dpbusd_avx_epi32(t[i], x, x);
  }
  QB_UNROLL for (int i = 0; i < sums; ++i) sink = _mm256_cvtss_f32(_mm256_castsi256_ps(t[i]));
  return static_cast<double>(rounds) * sums * 32;
}

// Whole tiles: four of sums, two of each factor. Products of 16 x 16 sums, of four bytes each row and step.
template <class Dots>
double tile_products(int64_t rounds, int64_t of_a_word, const Dots& dots) {
  TileShapes shapes;
  for (int t = 0; t < 8; ++t) shapes.rows[t] = 16, shapes.row_bytes[t] = 64;
  AmxTiles::shape(shapes);
  for (int64_t r = 0; r < rounds; ++r) dots();
  AmxTiles::release();
  return static_cast<double>(rounds * 4 * 16 * 16 * 16 * of_a_word);
}

double amx_int8(int64_t rounds) {
  return tile_products(rounds, 4, [] {
    AmxTiles::dot_int8<0, 4, 6>();
    AmxTiles::dot_int8<1, 4, 7>();
    AmxTiles::dot_int8<2, 5, 6>();
    AmxTiles::dot_int8<3, 5, 7>();
  });
}

double amx_bf16(int64_t rounds) {
  return tile_products(rounds, 2, [] {
    AmxTiles::dot_bf16<0, 4, 6>();
    AmxTiles::dot_bf16<1, 4, 7>();
    AmxTiles::dot_bf16<2, 5, 6>();
    AmxTiles::dot_bf16<3, 5, 7>();
  });
}
#endif

}  // namespace

uint64_t read_bytes(std::span<const std::byte> bytes, Isa isa) {
  return recipe::run_at<Read>(isa, bytes.data(), static_cast<int64_t>(bytes.size()));
}

double add_in_turn(Feature, int64_t rounds) {
  constexpr int64_t in_a_round = 16;
  uint64_t sum = 0;
  for (int64_t r = 0; r < rounds; ++r) {
    QB_UNROLL for (int64_t i = 0; i < in_a_round; ++i) {
      sum += static_cast<uint64_t>(r);
      __asm__("" : "+r"(sum));  // one after the other, as far as the compiler knows
    }
  }
  sink = static_cast<float>(sum);
  return static_cast<double>(rounds * in_a_round);
}

double multiply_f32([[maybe_unused]] Feature features, int64_t rounds) {
#if defined(__x86_64__)
  if (covers(features, Feature::avx512)) return avx512_f32(rounds);
  if (covers(features, Feature::avx2)) return avx2_f32(rounds);
#endif
  return generic_f32(rounds);
}

double multiply_bf16(Feature features, int64_t rounds) {
#if defined(__x86_64__)
  if (covers(features, Feature::amx_bf16)) return amx_bf16(rounds);
  if (covers(features, Feature::avx512_bf16)) return avx512_bf16(rounds);
#endif
  return multiply_f32(features, rounds);
}

double multiply_int8(Feature features, int64_t rounds) {
#if defined(__x86_64__)
  if (covers(features, Feature::amx_int8)) return amx_int8(rounds);
  if (covers(features, Feature::avx512 | Feature::avx512_vnni)) return vnni_int8(rounds);
  if (covers(features, Feature::avx_vnni)) return avx_vnni_int8(rounds);
  if (covers(features, Feature::avx2)) return avx2_int8(rounds);
#endif
  return multiply_f32(features, rounds);
}

}  // namespace qb::host
