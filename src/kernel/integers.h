// What the kernels that multiply integers share apart from instructions: which problems they take, how they quantize activations, what their workspace holds.
//
// Codes of weights and of activations are multiplied as they are and added up in 32 bits, exactly: for each row and token once, or for each group of columns
// that has a scale of its own. Instructions want one factor without a sign: weights are u = code + bias there, and with q the codes of activations
//   sum (code - zw) (q - zx) = sum u q - zx sum u - (bias + zw) sum (q - zx)
// in arithmetic modulo 2^32, of which the result is the sum itself, because `accepts` has seen that it fits.
//
// E2M1 numbers are halves of integers up to 12, so weights of FP4, and activations of NVFP4 beside groups of 16 columns, are multiplied as these integers; the
// halves come last.
#pragma once

#include "kernel/panels.h"

namespace qb::kernel {

Verdict integers_accept(Weights, const Problem&);

inline constexpr int64_t most_group = 1024;  // columns

constexpr int bias_of(Weights kind) {
  return kind == Weights::int4 ? 8 : kind == Weights::fp4 ? 12 : 128;
}

// Activations that are NVFP4 beside weights with scales for the same 16 columns.
inline bool nvfp4_inputs(const Problem& p) {
  return quantization_of(p) == Quantization::nvfp4 && group_columns(p.scheme.weight) == 16;
}

// The workspace: a scale and a zero point of each token, then for each group and token the sum of its codes less their zero point, the same times minus the
// bias and, of NVFP4, the group's scale; then rows of codes and, where activations have zero points, one of ones; each of whole lines of the weight's layout
// and of 64 bytes, with 64 more so that rows do not fall on the same cache sets. Past k all are 0.
template <class X>
struct IntegersPrepared {
  IntegersPrepared(Weights kind, const Problem& p) : in(integer_inputs(p)), zeros(in && in->zeros) {
    stride = stride_of(p.m);
    const ir::Layout layout = form_of(kind).layout;
    const int64_t unit = ir::unit_of(layout), group = group_columns(p.scheme.weight);
    places = panel_columns(layout, p.scheme.weight, p.k);
    columns = (places + unit - 1) / unit * unit;
    ld = (columns * static_cast<int64_t>(sizeof(X)) + 63) / 64 * (64 / static_cast<int64_t>(sizeof(X))) + 64 / static_cast<int64_t>(sizeof(X));
    groups = group == 0 ? 1 : (p.k + group - 1) / group;
    moved_bytes = static_cast<size_t>(moved_columns(kind, p)) * sizeof(X);
  }
  IntegersPrepared(Weights kind, const Problem& p, std::byte* workspace) : IntegersPrepared(kind, p) {
    const auto address = reinterpret_cast<uintptr_t>(workspace);
    scale = reinterpret_cast<float*>(workspace + (64 - address % 64) % 64);
    zero = reinterpret_cast<int32_t*>(scale + p.m);
    sum = zero + p.m;
    start = sum + stride * groups;
    if (!in) group_scale = reinterpret_cast<float*>(start + stride * groups);
    x = reinterpret_cast<X*>(scale + words(p.m));
    ones = zeros ? x + p.m * ld : nullptr;
    moved = x + (p.m + (zeros ? 1 : 0)) * ld;
  }
  int64_t at(int64_t group, int64_t m) const { return group * stride + m; }  // of sum, start and group_scale: tokens that are multiplied at once lie together
  // Groups of few tokens follow each other; those of many do not fall on the same cache sets.
  static int64_t stride_of(int64_t m) { return m < 16 ? m : (m + 15) / 16 * 16 + 16; }
  int64_t words(int64_t m) const { return (m * 2 + stride_of(m) * (in ? 2 : 3) * groups + 15) / 16 * 16; }
  size_t bytes(int64_t m) const {
    return 64 + static_cast<size_t>(words(m)) * sizeof(float) + static_cast<size_t>(m + (zeros ? 1 : 0)) * static_cast<size_t>(ld) * sizeof(X) +
           static_cast<size_t>(m) * moved_bytes;
  }

  std::optional<IntegerInputs> in;                      // nothing: they are NVFP4
  bool zeros;                                           // of activations
  int64_t stride = 0;                                   // from one group's tokens to the next
  int64_t places = 0, columns = 0, ld = 0, groups = 1;  // places: of the weight's columns; columns: these in whole lines
  float* scale = nullptr;
  int32_t *zero = nullptr, *sum = nullptr, *start = nullptr;
  float* group_scale = nullptr;
  X *x = nullptr, *ones = nullptr;
  X* moved = nullptr;      // rows of activations in their own order
  size_t moved_bytes = 0;  // of one
};

namespace inputs {

struct IntegerScale {
  float scale = 1, zero = 0;
};

inline constexpr int lanes = 16;  // of loops over numbers that add up, whatever vectors there are

template <class X>
QB_INLINE int32_t sum_of(const X* x, int64_t count) {
  int32_t part_of[lanes] = {}, sum = 0;
  int64_t j = 0;
  for (; j + lanes <= count; j += lanes)
    for (int i = 0; i < lanes; ++i) part_of[i] += x[j + i];
  for (int i = 0; i < lanes; ++i) sum += part_of[i];
  for (; j < count; ++j) sum += x[j];
  return sum;
}

QB_INLINE float rounded_within(float x, float low, float high) {
  x = x < low ? low : x;  // NaN stays
  x = x > high ? high : x;
  return (x + 0x1.8p23F) - 0x1.8p23F;
}

// Bits of a float32 number as an integer that is greater where the number is, and back.
QB_INLINE int32_t ordered(int32_t bits) {
  return bits ^ ((bits >> 31) & INT32_MAX);
}

// Of these numbers alone, as the formulas above say it.
QB_INLINE IntegerScale integer_scale(const IntegerInputs& in, const float* x, int64_t count) {
  const float low = -static_cast<float>(1 << (in.bits - 1)), high = -low - 1;
  IntegerScale s;
  if (!in.zeros) {
    s.scale = amax(x, count) / high;
    s.scale = s.scale < 1e-12F ? 1e-12F : s.scale;
    return s;
  }
  // As integers of the same order, whose least and most a loop finds as vector code. NaN is beyond the infinities.
  int32_t first = 0, last = 0;
  for (int64_t j = 0; j < count; ++j) {
    const int32_t key = ordered(std::bit_cast<int32_t>(x[j]));
    first = key < first ? key : first;
    last = key > last ? key : last;
  }
  const auto inf = static_cast<int32_t>(f32_inf_bits);
  const uint32_t nan = last > inf || first < ordered(inf | INT32_MIN) ? 0x7FC00000U : 0U;
  const float least = std::bit_cast<float>(ordered(first)), most = std::bit_cast<float>(ordered(last));
  s.scale = (most - least) / (high - low);
  s.scale = s.scale == 0 ? 1.0F : s.scale;
  s.zero = rounded_within(low - least / s.scale, low, high);
  s.scale = std::bit_cast<float>(std::bit_cast<uint32_t>(s.scale) | nan);
  return s;
}

// Codes of one token, and whether all are numbers.
template <class X>
QB_INLINE bool integer_codes(const IntegerInputs& in, const float* x, int64_t count, IntegerScale s, X* to) {
  const float low = -static_cast<float>(1 << (in.bits - 1)), high = -low - 1;
  float code[part];
  uint32_t nan = 0;
  for (int64_t at = 0; at < count; at += part) {
    const int64_t here = count - at < part ? count - at : part;
    for (int64_t j = 0; j < here; ++j) code[j] = rounded_within(x[at + j] / s.scale + s.zero, low, high);
    for (int64_t j = 0; j < here; ++j) {
      nan |= (std::bit_cast<uint32_t>(code[j]) & f32_abs_mask) > f32_inf_bits ? 1U : 0U;
      to[at + j] = static_cast<X>(static_cast<int32_t>(std::bit_cast<uint32_t>(code[j] + 0x1.8p23F) - 0x4B400000U));
    }
  }
  return nan == 0;
}

// Twice the E2M1 numbers of whole blocks of 16, and a scale of each, `stride` floats apart: as nvfp4_codes.
template <class X>
QB_INLINE void nvfp4_integers(const float* x, int64_t count, float global, X* to, float* scales, int64_t stride) {
  float b[part / 16], d[part], twice[part];
  for (int64_t at = 0; at < count; at += part, scales += part / 16 * stride) {
    const int64_t here = count - at < part ? count - at : part, groups = here / 16;
    for (int64_t g = 0; g < groups; ++g) b[g] = amax(x + at + 16 * g, 16);
    for (int64_t g = 0; g < groups; ++g) b[g] = to_e4m3(b[g] / 6.0F / global);
    for (int64_t g = 0; g < groups; ++g) {
      scales[g * stride] = b[g];
      for (int64_t j = 0; j < 16; ++j) d[16 * g + j] = b[g] * global;
    }
    for (int64_t j = 0; j < here; ++j) {
      const float q = 2 * to_e2m1(x[at + j] / d[j]);
      twice[j] = std::bit_cast<float>(d[j] == 0 ? 0U : std::bit_cast<uint32_t>(q));
    }
    for (int64_t j = 0; j < here; ++j) to[at + j] = static_cast<X>(static_cast<int32_t>(twice[j]));
  }
}

}  // namespace inputs
}  // namespace qb::kernel
