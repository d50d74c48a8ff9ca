// Building blocks of the recipes' loops: elements, quotients and E4M3 codes without branches, and one way to compile a loop for each level of Isa.
//
// Goals: the bytes that the scalar codecs give, at any vector width: plain C++ that compilers vectorise, no intrinsics, FMA only where it is asked for by name.
// Non-goals: choosing the level (Args::isa says it); anything but little-endian memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "num/codec.h"
#include "num/elem.h"
#include "num/isa.h"
#include "num/minifloat.h"

namespace qb::recipe {

// A source element: `Bits` as it lies in memory, its magnitude as an integer that orders like |x| (NaN above everything), its value as binary32; round() takes
// binary32 magnitude bits to those of the nearest element, nearest() a finite value to that of the nearest element, narrow() a value that is already an element
// to its bits. step: from a normal number to the next one, in bits of binary32. eps and tiny as in finfo of NumPy and PyTorch.
struct Bf16 {
  using Bits = uint16_t;
  using Magnitude = uint16_t;
  static QB_INLINE Magnitude magnitude(Bits b) { return static_cast<Magnitude>(b & 0x7FFFU); }
  static QB_INLINE float value(uint32_t b) { return std::bit_cast<float>(b << 16); }
  static QB_INLINE uint32_t round(uint32_t f32_magnitude) { return round_bf16_magnitude(f32_magnitude); }
  static QB_INLINE float nearest(float x) {
    const uint32_t b = std::bit_cast<uint32_t>(x);
    return std::bit_cast<float>((b + 0x7FFFU + ((b >> 16) & 1U)) & 0xFFFF0000U);
  }
  static Bits narrow(float x) { return static_cast<Bits>(std::bit_cast<uint32_t>(x) >> 16); }
  static constexpr uint32_t step = uint32_t{1} << 16;
  static constexpr float tiny = 0x1p-126F, eps = 0x1p-7F;
};
struct F16 {
  using Bits = uint16_t;
  using Magnitude = uint16_t;
  static QB_INLINE Magnitude magnitude(Bits b) { return static_cast<Magnitude>(b & 0x7FFFU); }
  static QB_INLINE float value(uint32_t b) { return std::bit_cast<float>(std::bit_cast<uint32_t>(f16_value(b & 0x7FFFU)) | ((b & 0x8000U) << 16)); }
  static QB_INLINE uint32_t round(uint32_t f32_magnitude) { return round_f16_magnitude(f32_magnitude); }
  static QB_INLINE float nearest(float x) {
    const uint32_t b = std::bit_cast<uint32_t>(x);
    return std::bit_cast<float>(round(b & f32_abs_mask) | (b & ~f32_abs_mask));
  }
  static Bits narrow(float x) { return encode_f16(x); }
  static constexpr uint32_t step = uint32_t{1} << 13;
  static constexpr float tiny = 0x1p-14F, eps = 0x1p-10F;
};
struct F32 {
  using Bits = uint32_t;
  using Magnitude = uint32_t;
  static QB_INLINE Magnitude magnitude(Bits b) { return b & f32_abs_mask; }
  static QB_INLINE float value(uint32_t b) { return std::bit_cast<float>(b); }
  static QB_INLINE uint32_t round(uint32_t f32_magnitude) { return f32_magnitude; }
  static QB_INLINE float nearest(float x) { return x; }
  static Bits narrow(float x) { return std::bit_cast<uint32_t>(x); }
  static constexpr uint32_t step = 1;
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

// Quotients without division, by inverse = 1 / d: a third of its time. Only where divides_exactly().
// x / d to the last bit: two fused multiply-adds take away what is left of x (Markstein, IBM Journal of Research and Development 34, 1990).
QB_INLINE float quotient(float x, float d, float inverse) {
  const float q = x * inverse;
  return __builtin_fmaf(__builtin_fmaf(-q, d, x), inverse, q);
}
// x / d rounded to an element, where d is one. No such quotient lies midway between two elements: times d, what does has more digits than an element. So half
// a step is added and the rest cut off; the product is far nearer to the quotient than that is to any middle.
template <class S>
QB_INLINE float nearest_quotient(float x, float inverse) {
  return std::bit_cast<float>((std::bit_cast<uint32_t>(x * inverse) + S::step / 2) & (0U - S::step));
}
// Whether both are exact for elements of S and divisors from `least` to `most`: where FMA is in hardware; for significands of at most 11 bits, all of which
// were compared with division, the first for all 2^23 significands of d, the second for all that d can have; where nothing on the way is subnormal. Quotients
// below 2^-40 are only as small as they should be, those below 2^-14 may be rounded to the neighbour; -0 may become 0; |x| / d must be finite.
template <class S>
QB_INLINE bool divides_exactly(Isa isa, float least, float most) {
  return isa != Isa::generic && sizeof(typename S::Bits) == 2 && least >= 0x1p-60F && most <= 0x1p10F;
}
// That, and no |x| is more than half a step of codes beyond amax / d, which a scale that is a subnormal element would be too coarse for.
template <class S, bool Rounded>
QB_INLINE bool divides_within(Isa isa, float x, float amax, float d) {
  return x <= amax && (!Rounded || d >= S::tiny) && divides_exactly<S>(isa, d, d);
}

// codes[i] = the low byte of code(element i). BF16 numbers go in pairs: a shift gives one and a mask the other, and two codes are narrowed at once.
template <class S, class Code>
QB_INLINE void each_code(const std::byte* __restrict weights, int64_t count, std::byte* __restrict codes, const Code& code) {
  int64_t i = 0;
  if constexpr (std::is_same_v<S, Bf16>) {
    const int64_t pairs = count / 2;
    for (int64_t p = 0; p < pairs; ++p) {
      const uint32_t both = load<F32>(weights, p);
      store(codes, p, static_cast<uint16_t>((code(std::bit_cast<float>(both << 16)) & 0xFFU) | (code(std::bit_cast<float>(both & 0xFFFF0000U)) << 8)));
    }
    i = 2 * pairs;
  }
  for (; i < count; ++i) codes[i] = static_cast<std::byte>(code(S::value(load<S>(weights, i))));
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
#define QB_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define QB_AVX512 __attribute__((target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl")))
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
