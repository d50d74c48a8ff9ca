// Building blocks of the recipes' loops: elements, quotients and E4M3 codes without branches, and one way to compile a loop for each level of Isa.
//
// Goals: the bytes that the scalar codecs give, at any vector width: plain C++ that compilers vectorise, no intrinsics, no contraction into FMA.
// Non-goals: choosing the level (Args::isa says it); anything but little-endian memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "num/codec.h"
#include "num/elem.h"
#include "num/isa.h"
#include "num/minifloat.h"

namespace qb::recipe {

// A source element: `Bits` as it lies in memory, its magnitude as an integer that orders like |x| (NaN above everything), its value as binary32; round() takes
// binary32 magnitude bits to those of the nearest element, narrow() a value that is already an element to its bits. eps and tiny as in finfo of NumPy and
// PyTorch.
struct Bf16 {
  using Bits = uint16_t;
  using Magnitude = uint16_t;
  static QB_INLINE Magnitude magnitude(Bits b) { return static_cast<Magnitude>(b & 0x7FFFU); }
  static QB_INLINE float value(uint32_t b) { return std::bit_cast<float>(b << 16); }
  static QB_INLINE uint32_t round(uint32_t f32_magnitude) { return round_bf16_magnitude(f32_magnitude); }
  static Bits narrow(float x) { return static_cast<Bits>(std::bit_cast<uint32_t>(x) >> 16); }
  static constexpr float tiny = 0x1p-126F, eps = 0x1p-7F;
};
struct F16 {
  using Bits = uint16_t;
  using Magnitude = uint16_t;
  static QB_INLINE Magnitude magnitude(Bits b) { return static_cast<Magnitude>(b & 0x7FFFU); }
  static QB_INLINE float value(uint32_t b) { return std::bit_cast<float>(std::bit_cast<uint32_t>(f16_value(b & 0x7FFFU)) | ((b & 0x8000U) << 16)); }
  static QB_INLINE uint32_t round(uint32_t f32_magnitude) { return round_f16_magnitude(f32_magnitude); }
  static Bits narrow(float x) { return encode_f16(x); }
  static constexpr float tiny = 0x1p-14F, eps = 0x1p-10F;
};
struct F32 {
  using Bits = uint32_t;
  using Magnitude = uint32_t;
  static QB_INLINE Magnitude magnitude(Bits b) { return b & f32_abs_mask; }
  static QB_INLINE float value(uint32_t b) { return std::bit_cast<float>(b); }
  static QB_INLINE uint32_t round(uint32_t f32_magnitude) { return f32_magnitude; }
  static Bits narrow(float x) { return std::bit_cast<uint32_t>(x); }
  static constexpr float tiny = 0x1p-126F, eps = 0x1p-23F;
};

template <class S>
QB_INLINE typename S::Bits load(const std::byte* p, int64_t i) {
  typename S::Bits bits;  // memory-mapped tensors may lie at odd addresses
  std::memcpy(&bits, p + i * static_cast<int64_t>(sizeof bits), sizeof bits);
  return bits;
}

template <class T>
QB_INLINE void store(std::byte* p, int64_t i, T value) {
  std::memcpy(p + i * static_cast<int64_t>(sizeof value), &value, sizeof value);
}

// |x| rounded to the source dtype, for x >= 0; NaN stays NaN.
template <class S>
QB_INLINE float round_scale(float x) {
  const uint32_t m = std::bit_cast<uint32_t>(x);
  return m > f32_inf_bits ? x : std::bit_cast<float>(S::round(m));
}

template <class S>
QB_INLINE typename S::Magnitude max_magnitude(const std::byte* p, int64_t count, typename S::Magnitude start) {
  typename S::Magnitude most = start;
  for (int64_t i = 0; i < count; ++i) {
    const typename S::Magnitude m = S::magnitude(load<S>(p, i));
    most = m > most ? m : most;
  }
  return most;
}

// Magnitude bits to an E4M3 magnitude code: above 464 (and NaN) gives NaN, or, saturating, above 448 gives 448 and only NaN gives NaN.
template <bool Saturate>
QB_INLINE uint32_t e4m3_code(uint32_t magnitude) {
  if constexpr (!Saturate) return round_magnitude<3, 7>(magnitude, 480.0F);
  return round_magnitude<3, 7>(magnitude, 448.0F) | (magnitude > f32_inf_bits ? 1U : 0U);
}

QB_INLINE float e4m3_value(uint32_t code) {
  const uint32_t special = code == 0x7F ? 0x7FC00000U : 0U;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude_value<3, 7>(code)) | special);
}

}  // namespace qb::recipe

#if defined(__x86_64__)
#define QB_AVX2 __attribute__((target("avx2,f16c,bmi,bmi2")))
#define QB_AVX512 __attribute__((target("avx2,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define QB_AVX2
#define QB_AVX512
#endif

namespace qb::recipe {

template <class Body, class... A>
auto run_generic(A... a) noexcept {
  return Body::run(a...);
}
template <class Body, class... A>
QB_AVX2 auto run_avx2(A... a) noexcept {
  return Body::run(a...);
}
template <class Body, class... A>
QB_AVX512 auto run_avx512(A... a) noexcept {
  return Body::run(a...);
}

// Runs Body::run(a...) compiled for that level. Body::run must be QB_INLINE, and all that it calls: then the target attribute holds for its loops and for
// nothing else in the program.
template <class Body, class... A>
auto run_at(Isa isa, A... a) noexcept {
  switch (isa) {
    case Isa::avx512:
      return run_avx512<Body>(a...);
    case Isa::avx2:
      return run_avx2<Body>(a...);
    case Isa::generic:
      break;
  }
  return run_generic<Body>(a...);
}

}  // namespace qb::recipe
