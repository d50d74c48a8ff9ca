// The instructions of panel_body.h in plain C++. Everything has internal linkage.
#pragma once

#include <array>

#define QB_K
#define QB_KI __attribute__((always_inline)) inline

#include "kernel/panel_body.h"

namespace qb::kernel {
namespace {

struct Values {
  std::array<float, 256> e4m3{};
  std::array<float, 16> e2m1{};
};
const Values values = [] {
  Values v;
  for (size_t c = 0; c < 256; ++c) v.e4m3[c] = decode_e4m3(static_cast<uint8_t>(c));
  for (size_t c = 0; c < 16; ++c) v.e2m1[c] = decode_e2m1(static_cast<uint8_t>(c));
  return v;
}();

// T: how activations lie in the workspace: float, or uint16_t, where `dot` is not to be had.
template <class T>
struct Generic {
  using X = T;
  struct Acc {
    float v[16];
  };
  struct Operand {
    Acc even, odd;
  };
  static constexpr int few = 2, mr = 2, nr = 1;
  // Zen 4 at 3.66 GHz, SSE2 code of g++ 12, one core, 256 x 1024 weights in the second-level cache: 15 G products a second for 64 tokens; for one token 10 G
  // (bf16), 2 G (fp8), 2.6 G (nvfp4), 3 G (int4 in groups of 128), 1.8 G (int8).
  static constexpr Rates rates{4.1, {8, 0.63, 0.86, 1, 0.56, 3, 8}, 0.36, few};

  QB_KI static Acc zero() { return Acc{}; }
  QB_KI static Acc load(const float* p) {
    Acc a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  QB_KI static void store(float* p, const Acc& a) { std::memcpy(p, a.v, sizeof a.v); }
  QB_KI static Acc splat(float x) {
    Acc a;
    for (float& v : a.v) v = x;
    return a;
  }
  QB_KI static Acc add(const Acc& x, const Acc& y) {
    Acc a;
    for (int r = 0; r < 16; ++r) a.v[r] = x.v[r] + y.v[r];
    return a;
  }
  QB_KI static Acc mul(const Acc& x, const Acc& y) {
    Acc a;
    for (int r = 0; r < 16; ++r) a.v[r] = x.v[r] * y.v[r];
    return a;
  }
  QB_KI static Acc mul_add(const Acc& x, const Acc& y, const Acc& z) { return add(mul(x, y), z); }
  QB_KI static Acc dot(const Acc& a, const Operand& o, const X* x) {
    Acc s;
    for (int r = 0; r < 16; ++r) s.v[r] = a.v[r] + o.even.v[r] * x[0] + o.odd.v[r] * x[1];
    return s;
  }
  QB_KI static Operand bf16(const std::byte* line) {
    uint32_t pairs[16];
    std::memcpy(pairs, line, sizeof pairs);
    Operand o;
    for (int r = 0; r < 16; ++r) {
      o.even.v[r] = std::bit_cast<float>(pairs[r] << 16);
      o.odd.v[r] = std::bit_cast<float>(pairs[r] & 0xFFFF0000U);
    }
    return o;
  }
  // Magnitudes at the place of float32's exponent and fraction are 2^112 too small, also where they are subnormal; infinity and NaN keep their exponent.
  QB_KI static void halves(const std::byte* from, Acc& to) {
    uint16_t half[16];
    std::memcpy(half, from, sizeof half);
    for (int r = 0; r < 16; ++r) {
      const uint32_t magnitude = half[r] & 0x7FFFU, beyond = magnitude < 0x7C00U ? 0U : f32_inf_bits;
      const uint32_t number = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112F) | beyond;
      to.v[r] = std::bit_cast<float>(number | (half[r] & 0x8000U) << 16);
    }
  }
  QB_KI static Operand f16(const std::byte* line) {
    Operand o;
    halves(line, o.even);
    halves(line + 32, o.odd);
    return o;
  }
  QB_KI static Operand f32(const std::byte* line) {
    Operand o;
    std::memcpy(&o, line, sizeof o);
    return o;
  }
  QB_KI static void store_bf16(std::byte* line, const Operand& o) {
    uint32_t pairs[16];
    for (int r = 0; r < 16; ++r) pairs[r] = std::bit_cast<uint32_t>(o.even.v[r]) >> 16 | (std::bit_cast<uint32_t>(o.odd.v[r]) & 0xFFFF0000U);
    std::memcpy(line, pairs, sizeof pairs);
  }
  QB_KI static float code(const std::byte* line, int64_t at) { return values.e4m3[std::to_integer<size_t>(line[at])]; }
  QB_KI static void fp8(const std::byte* line, Operand* o) {
    for (int64_t r = 0; r < 16; ++r) {
      const int64_t at = r / 4 * 16 + r % 4 * 2;
      o[0].even.v[r] = code(line, at);
      o[0].odd.v[r] = code(line, at + 1);
      o[1].even.v[r] = code(line, at + 8);
      o[1].odd.v[r] = code(line, at + 9);
    }
  }
  QB_KI static void fp4(const std::byte* line, Operand* o) {
    for (int64_t r = 0; r < 16; ++r) {
      for (int64_t j = 0; j < 2; ++j) {
        const auto first = std::to_integer<size_t>(line[4 * r + j]), second = std::to_integer<size_t>(line[4 * r + j + 2]);
        o[j].even.v[r] = values.e2m1[first & 15U];
        o[j].odd.v[r] = values.e2m1[second & 15U];
        o[j + 2].even.v[r] = values.e2m1[first >> 4];
        o[j + 2].odd.v[r] = values.e2m1[second >> 4];
      }
    }
  }
  using Zero = Acc;
  QB_KI static Zero zeros4(const std::byte* bytes) {
    Acc z;
    for (int64_t r = 0; r < 16; ++r) z.v[r] = std::to_integer<int8_t>(bytes[r]);
    return z;
  }
  QB_KI static Zero zeros8(const std::byte* bytes) { return zeros4(bytes); }
  QB_KI static void int4(const std::byte* line, const Zero& zero, Operand* o) {
    for (int64_t r = 0; r < 16; ++r) {
      uint32_t row;
      std::memcpy(&row, line + 4 * r, sizeof row);
      const auto code = [&](int at) { return static_cast<float>(static_cast<int>(row >> at & 15U) - 8) - zero.v[r]; };
      o[0].even.v[r] = code(0);
      o[0].odd.v[r] = code(16);
      o[1].even.v[r] = code(8);
      o[1].odd.v[r] = code(24);
      o[2].even.v[r] = code(4);
      o[2].odd.v[r] = code(20);
      o[3].even.v[r] = code(12);
      o[3].odd.v[r] = code(28);
    }
  }
  QB_KI static void int4(const std::byte* line, Operand* o) { int4(line, zero(), o); }
  QB_KI static void int8(const std::byte* line, const Zero& zero, Operand* o) {
    for (int64_t r = 0; r < 16; ++r) {
      const auto code = [&](int64_t j) { return static_cast<float>(std::to_integer<int8_t>(line[4 * r + j])) - zero.v[r]; };
      o[0].even.v[r] = code(0);
      o[0].odd.v[r] = code(2);
      o[1].even.v[r] = code(1);
      o[1].odd.v[r] = code(3);
    }
  }
  QB_KI static void int8(const std::byte* line, Operand* o) { int8(line, zero(), o); }
  QB_KI static Acc powers(const std::byte* bytes) {
    Acc a;
    for (int64_t r = 0; r < 16; ++r) a.v[r] = decode_e8m0(std::to_integer<uint8_t>(bytes[r]));
    return a;
  }
  QB_KI static Acc scales(const std::byte* bytes) {
    Acc a;
    for (int64_t r = 0; r < 16; ++r) a.v[r] = code(bytes, r);
    return a;
  }
  static constexpr float scale_unit = 1;
  QB_KI static void two_scales(const std::byte* bytes, Acc* s) {
    s[0] = scales(bytes);
    s[1] = scales(bytes + 16);
  }
  QB_KI static Operand times(const Operand& o, const Acc& scale) { return {mul(o.even, scale), mul(o.odd, scale)}; }
};

}  // namespace
}  // namespace qb::kernel
