// Activations on their way into a dot product: which formula a problem asks for, and the formulas, in float32 and in this order of operations:
//
//   fp8, fixed scale s       e4m3(x / s) * s
//   fp8, a scale taken here  s = max(amax / 448, 1e-12) over the tensor, the token or a group of it; e4m3(x / s) * s
//   fp8, a group @e8m0       s rounded up to a power of two
//   mxfp8, mxfp4             s = 2^(floor(log2 amax) - e) over 32, e the exponent of the format's largest number; clamp, element(x / s) * s
//   mxfp8_even, mxfp4_even   s twice as large where amax is 1.75 or more times a power of two
//   mxfp8_up, mxfp4_up       s = the least power of two that is not below amax / largest
//   nvfp4, fixed scale g     b = e4m3(amax / 6 / g) over 16; d = b * g; e2m1(x / d) * d, and 0 where d is 0
//
//   int<b>, fixed scale s    (clamp(round(x / s + z)) - z) * s in numbers of b bits, z the fixed zero point or 0
//   int<b>, taken here       s = max(amax / (2^(b-1)-1), 1e-12); with zero points s = (max - min) / (2^b-1) over numbers that 0 is among,
//                            z = round(clamp(-2^(b-1) - min / s)); (clamp(round(x / s + z)) - z) * s
//
// e4m3, e2m1 and round() round to nearest even and saturate. NaN makes its whole scale block NaN. These are the formulas by which producers simulate their own
// schemes. The reference kernel multiplies the scale in; others keep it apart: codes (nvfp4: e2m1 * b, mx: element * s) are exact in bfloat16, `outer`
// scales come last. Everything here is inlined always, so that it may be compiled for a wider instruction set.
#pragma once

#include <cstring>
#include <optional>

#include "kernel/kernel.h"
#include "recipe/loops.h"

namespace qb::kernel {

// The rules for scales of MX blocks are in the order of ir::Rounding.
enum class Quantization : uint8_t {
  f32,
  bf16,
  fp8_fixed,
  fp8_tensor,
  fp8_token,
  fp8_group,
  fp8_group_e8m0,
  nvfp4,
  mxfp8,
  mxfp8_even,
  mxfp8_up,
  mxfp4,
  mxfp4_even,
  mxfp4_up
};

inline bool is_mx(Quantization q) {
  return q >= Quantization::mxfp8;
}
inline bool is_mxfp8(Quantization q) {
  return q >= Quantization::mxfp8 && q < Quantization::mxfp4;
}
// Of an MX quantization.
inline ir::Rounding rounding_of(Quantization q) {
  return static_cast<ir::Rounding>(static_cast<int>(q) - static_cast<int>(is_mxfp8(q) ? Quantization::mxfp8 : Quantization::mxfp4));
}
inline bool is_group(Quantization q) {
  return q == Quantization::fp8_group || q == Quantization::fp8_group_e8m0;
}

// Nothing where no kernel knows the scheme's activations.
inline std::optional<Quantization> quantization_of(const Problem& p) {
  if (p.inputs == Inputs::f32) return Quantization::f32;
  if (p.inputs == Inputs::bf16 || !p.scheme.input) return Quantization::bf16;
  const ir::QuantType& t = p.scheme.input->type;
  const bool fixed = p.scheme.input->when == ir::When::fixed;
  if (t.zero != ir::Zero::none) return std::nullopt;
  if (t.plain()) return t.code == Elem::bf16 ? std::optional(Quantization::bf16) : std::nullopt;
  if (t.code == Elem::e2m1 && t.two_level() && t.block == ir::Block{1, 16} && fixed && p.k % 16 == 0) return Quantization::nvfp4;
  // Groups of 32 are MX blocks, whose scales follow rules of their own.
  if (t.scale == ir::ScaleValues::e8m0 && !fixed && t.block == ir::Block{1, 32}) {
    const auto by_rounding = [&](Quantization down) { return static_cast<Quantization>(static_cast<int>(down) + static_cast<int>(p.scheme.input->rounding)); };
    if (t.code == Elem::e4m3) return by_rounding(Quantization::mxfp8);
    if (t.code == Elem::e2m1) return by_rounding(Quantization::mxfp4);
  }
  if (t.code == Elem::e4m3 && t.scale == ir::ScaleValues::e8m0 && !fixed && t.block.rows == 1 && t.block.cols > 32) return Quantization::fp8_group_e8m0;
  if (t.code != Elem::e4m3 || t.scale != ir::ScaleValues::any) return std::nullopt;
  if (t.block == ir::Block{0, 0}) return fixed ? Quantization::fp8_fixed : Quantization::fp8_tensor;
  if (fixed || t.block.rows != 1) return std::nullopt;
  return t.block.cols == 0 ? Quantization::fp8_token : Quantization::fp8_group;
}

// Integer activations: by kernels that add up integers, or as numbers (quantized.h).
struct IntegerInputs {
  int bits = 8;
  bool fixed = false, zeros = false;
  int64_t columns = 0;  // that share a scale; 0: the whole input does
};
inline std::optional<IntegerInputs> integer_inputs(const Problem& p) {
  if (p.inputs != Inputs::as_scheme || !p.scheme.input) return std::nullopt;
  const ir::QuantType& t = p.scheme.input->type;
  const bool fixed = p.scheme.input->when == ir::When::fixed, tensor = t.block == ir::Block{0, 0};
  if (!is_integer_code(t.code) || t.scale != ir::ScaleValues::any || (fixed && !tensor) || t.block.rows > 1) return std::nullopt;
  return IntegerInputs{qb::bits(t.code), fixed, t.zero != ir::Zero::none, tensor ? 0 : t.block.cols == 0 ? p.k : int64_t{t.block.cols}};
}

namespace inputs {

QB_INLINE float signed_like(float magnitude, float x) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | (std::bit_cast<uint32_t>(x) & 0x80000000U));
}
// The nearest number of a format with Mant bits of fraction, at most `limit`: adding and taking away 2^23 steps of the format rounds to whole steps. As
// round_magnitude, but the number and not its code: no branch, so that loops become vector code. NaN counts as the limit.
template <int Mant, int Bias>
QB_INLINE float nearest(uint32_t magnitude, float limit) {
  constexpr uint32_t min_normal = uint32_t{128 - Bias} << 23;
  magnitude = min_of(magnitude, std::bit_cast<uint32_t>(limit));
  const float magic = std::bit_cast<float>(max_of(magnitude & f32_inf_bits, min_normal) + (uint32_t{23 - Mant} << 23));
  return (std::bit_cast<float>(magnitude) + magic) - magic;
}
QB_INLINE float to_e4m3(float x) {
  const uint32_t magnitude = std::bit_cast<uint32_t>(x) & f32_abs_mask, nan = magnitude > f32_inf_bits ? 0x7FC00000U : 0U;
  return signed_like(std::bit_cast<float>(std::bit_cast<uint32_t>(nearest<3, 7>(magnitude, 448.0F)) | nan), x);
}
QB_INLINE float to_e2m1(float x) {
  return signed_like(nearest<1, 1>(std::bit_cast<uint32_t>(x) & f32_abs_mask, 6.0F), x);
}
QB_INLINE float to_bf16(float x) {
  return std::bit_cast<float>(static_cast<uint32_t>(bf16_code(x)) << 16);
}

QB_INLINE float amax(const float* x, int64_t count) {
  return recipe::F32::value(recipe::max_magnitude<recipe::F32>(reinterpret_cast<const std::byte*>(x), count, 0));
}
// max(a / 448, 1e-12); NaN stays.
QB_INLINE float fp8_scale(float a) {
  const float s = a / 448.0F;
  return s < 1e-12F ? 1e-12F : s;
}
// The least power of two that is not below fp8_scale(a).
QB_INLINE float fp8_scale_e8m0(float a) {
  const uint32_t bits = std::bit_cast<uint32_t>(fp8_scale(a));
  return std::bit_cast<float>(bits > f32_inf_bits ? bits : (bits + 0x7FFFFFU) & f32_inf_bits);
}
QB_INLINE float group_scale(Quantization q, float a) {
  return q == Quantization::fp8_group_e8m0 ? fp8_scale_e8m0(a) : fp8_scale(a);
}

// The scale of an MX block with its largest magnitude `a`; NaN stays.
QB_INLINE float mx_scale(Quantization q, float a) {
  const bool fp8 = is_mxfp8(q);
  const ir::Rounding rounding = rounding_of(q);
  const uint32_t bits = std::bit_cast<uint32_t>(a), fraction = bits & 0x7FFFFFU;
  if (bits > f32_inf_bits) return a;
  // 448 = 1.75 * 2^8, 6 = 1.5 * 2^2: above that fraction the next power is needed.
  int e = static_cast<int>(bits >> 23) - 127 - (fp8 ? 8 : 2);
  if (rounding == ir::Rounding::up && fraction > (fp8 ? 0x600000U : 0x400000U)) ++e;
  if (rounding == ir::Rounding::even && fraction >= 0x600000U) ++e;
  e = e < -127 ? -127 : e > 127 ? 127 : e;
  return std::bit_cast<float>(e == -127 ? 0x400000U : static_cast<uint32_t>(e + 127) << 23);
}

// The number that a store keeps: as it is, or as bfloat16, which all codes are exactly.
QB_INLINE void keep(float value, float* to) {
  *to = value;
}
QB_INLINE void keep(float value, uint16_t* to) {
  *to = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}

// In two loops, each of which compilers make vector code of; a part of a row at a time stays in the first-level cache.
inline constexpr int64_t part = 512;

template <class T>
QB_INLINE void fp8_codes(const float* x, int64_t count, float scale, T* to) {
  float code[part];
  for (int64_t at = 0; at < count; at += part) {
    const int64_t here = count - at < part ? count - at : part;
    for (int64_t j = 0; j < here; ++j) code[j] = to_e4m3(x[at + j] / scale);
    for (int64_t j = 0; j < here; ++j) keep(code[j], to + at + j);
  }
}

// Codes times the powers of two of their blocks: few significant bits, which bfloat16 has.
template <class T>
QB_INLINE void mx_numbers(Quantization q, const float* x, int64_t count, T* to) {
  const bool fp8 = is_mxfp8(q);
  for (int64_t at = 0; at < count; at += 32) {
    const int64_t here = count - at < 32 ? count - at : 32;
    const float s = mx_scale(q, amax(x + at, here));
    float number[32];
    if (fp8) {
      for (int64_t j = 0; j < here; ++j) number[j] = to_e4m3(x[at + j] / s) * s;
    } else {
      for (int64_t j = 0; j < here; ++j) number[j] = to_e2m1(x[at + j] / s) * s;
    }
    for (int64_t j = 0; j < here; ++j) keep(number[j], to + at + j);
  }
}

// e2m1 * b for whole blocks of 16, b = e4m3(amax / 6 / global).
template <class T>
QB_INLINE void nvfp4_codes(const float* x, int64_t count, float global, T* to) {
  float b[part / 16], scale[part], code[part];
  for (int64_t at = 0; at < count; at += part) {
    const int64_t here = count - at < part ? count - at : part;
    for (int64_t g = 0; g < here / 16; ++g) b[g] = amax(x + at + 16 * g, 16);
    for (int64_t g = 0; g < here / 16; ++g) b[g] = to_e4m3(b[g] / 6.0F / global);
    for (int64_t g = 0; g < here / 16; ++g) {
      for (int64_t j = 0; j < 16; ++j) scale[16 * g + j] = b[g];
    }
    for (int64_t j = 0; j < here; ++j) {
      const float d = scale[j] * global;
      const float q = to_e2m1(x[at + j] / d) * scale[j];
      code[j] = std::bit_cast<float>(d == 0 ? 0U : std::bit_cast<uint32_t>(q));
    }
    for (int64_t j = 0; j < here; ++j) keep(code[j], to + at + j);
  }
}

}  // namespace inputs
}  // namespace qb::kernel
