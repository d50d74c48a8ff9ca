// The instructions of integer_body.h in plain C++. Everything has internal linkage.
#pragma once

#define QB_K
#define QB_KI __attribute__((always_inline)) inline

#include "kernel/integer_body.h"

namespace qb::kernel {
namespace {

// T: how activations lie in the workspace.
template <class T>
struct Words {
  using X = T;
  struct Int {
    uint32_t v[16];  // sums wrap
  };
  struct Float {
    float v[16];
  };
  struct Operand {
    int16_t w[4][16];  // by column
  };
  static constexpr bool exchanged = false, short_groups = false;
  static constexpr int few = 2, mr = 2, nr = 1, group_mr = 2, group_nr = 1;
  // Zen 4 at 3.66 GHz, SSE2 code of g++ 12, one core, 256 x 1024 weights in the second-level cache: 3 G products a second for 64 tokens; for one token 1.4 G
  // (int4 in groups of 128), 2 G (int8).
  static constexpr Rates rates{0.85, {0, 0, 0, 0.7, 1.5}, 0.8, few};

  QB_KI static Int zero() { return Int{}; }
  QB_KI static Int load(const int32_t* p) {
    Int a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  QB_KI static void store(int32_t* p, const Int& a) { std::memcpy(p, a.v, sizeof a.v); }
  QB_KI static Int splat(int32_t i) {
    Int a;
    for (uint32_t& v : a.v) v = static_cast<uint32_t>(i);
    return a;
  }
  QB_KI static Int add(const Int& x, const Int& y) {
    Int a;
    for (int r = 0; r < 16; ++r) a.v[r] = x.v[r] + y.v[r];
    return a;
  }
  QB_KI static Int minus_product(const Int& x, const Int& y, int32_t i) {
    Int a;
    for (int r = 0; r < 16; ++r) a.v[r] = x.v[r] - y.v[r] * static_cast<uint32_t>(i);
    return a;
  }
  QB_KI static Int zeros(const std::byte* bytes) {
    Int a;
    for (int r = 0; r < 16; ++r) a.v[r] = static_cast<uint32_t>(int{std::to_integer<int8_t>(bytes[r])});
    return a;
  }
  QB_KI static Float float_zero() { return Float{}; }
  QB_KI static Float load(const float* p) {
    Float a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  QB_KI static void store(float* p, const Float& a) { std::memcpy(p, a.v, sizeof a.v); }
  QB_KI static Float splat(float x) {
    Float a;
    for (float& v : a.v) v = x;
    return a;
  }
  QB_KI static Float times(const Float& x, const Float& y) {
    Float a;
    for (int r = 0; r < 16; ++r) a.v[r] = x.v[r] * y.v[r];
    return a;
  }
  QB_KI static Float mul_add(const Int& x, const Float& y, const Float& z) {
    Float a;
    for (int r = 0; r < 16; ++r) a.v[r] = static_cast<float>(static_cast<int32_t>(x.v[r])) * y.v[r] + z.v[r];
    return a;
  }
  template <uint32_t flip>
  QB_KI static Operand columns(const std::byte* line) {
    uint32_t rows[16];
    std::memcpy(rows, line, sizeof rows);
    Operand o;
    for (int j = 0; j < 4; ++j) {
      for (int r = 0; r < 16; ++r) o.w[j][r] = static_cast<int16_t>(((rows[r] ^ flip) >> (8 * j)) & 0xFFU);
    }
    return o;
  }
  QB_KI static Operand u8(const std::byte* line) { return columns<0>(line); }
  QB_KI static Operand int8(const std::byte* line) { return columns<0x80808080U>(line); }
  QB_KI static void bytes8(const std::byte* line, std::byte* out) {
    for (int i = 0; i < 64; ++i) out[i] = line[i] ^ std::byte{0x80};
  }
  QB_KI static void bytes4(const std::byte* line, std::byte* out) {
    for (int i = 0; i < 64; ++i) {
      out[i] = line[i] & std::byte{15};
      out[i + 64] = line[i] >> 4;
    }
  }
  QB_KI static void int4(const std::byte* line, Operand* o) {
    std::byte both[128];
    bytes4(line, both);
    o[0] = u8(both);
    o[1] = u8(both + 64);
  }
  QB_KI static Int dot(const Int& t, const Operand& o, const X* x) {
    Int a = t;
    for (int j = 0; j < 4; ++j) {
      for (int r = 0; r < 16; ++r) a.v[r] += static_cast<uint32_t>(o.w[j][r] * x[j]);
    }
    return a;
  }
};

}  // namespace
}  // namespace qb::kernel
