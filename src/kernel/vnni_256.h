// The instructions of integer_body.h for vpdpbusd on registers of 256 bits, which adds four products of a byte without and a byte with sign to each of eight
// sums of 32 bits, and does not saturate. The including file defines QB_K and QB_KI (panel_body.h) and gives the instruction itself:
//   Dot::add(sums, bytes without sign, bytes with sign)
// so that tests have the same loops with one that any processor with AVX2 runs. Everything has internal linkage.
#pragma once

#include "kernel/integer_body.h"
#include "kernel/scales_avx2.h"
#include "kernel/sums_avx2.h"

namespace qb::kernel {
namespace {

template <class Dot>
struct Vnni256 : Sums256 {
  using X = int8_t;
  using Operand = Int;  // four columns of rows 0..7 and of rows 8..15
  static constexpr bool exchanged = false, short_groups = false;
  // Of 16 registers 12 hold sums, one a line's half and one the activations; where groups have scales, sums of both kinds.
  static constexpr int few = 4, mr = 6, nr = 1, group_mr = 3, group_nr = 1;
  // From literature, not measured (of processors that have nothing wider none was at hand): Alder Lake's P-cores do two in a cycle (uops.info), 64 products, as
  // Zen 4 does with one of twice the width; of those the part is taken that Zen 4 was measured to reach (avx512_vnni.h), less a fifth for half as many
  // registers.
  static constexpr Rates rates{42, {0, 0, 20, 34, 32}, 20, few};

  QB_KI static Operand u8(const std::byte* line) { return {half(line), half(line + 32)}; }
  QB_KI static Operand int8(const std::byte* line) { return {biased(line), biased(line + 32)}; }
  QB_KI static void int4(const std::byte* line, Operand* o) {
    const __m256i a = half(line), b = half(line + 32);
    o[0] = {low(a), low(b)};
    o[1] = {high(a), high(b)};
  }
  QB_KI static Int dot(const Int& t, const Operand& o, const X* x) {
    int four;
    std::memcpy(&four, x, sizeof four);
    const __m256i all = _mm256_set1_epi32(four);
    return {Dot::add(t.a, o.a, all), Dot::add(t.b, o.b, all)};
  }
  // Twice an E2M1 number, plus 12.
  QB_KI static __m256i doubled(__m256i codes) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm256_shuffle_epi8(table, codes);
  }
  QB_KI static void fp4(const std::byte* line, Operand* o) {
    int4(line, o);
    o[0] = {doubled(o[0].a), doubled(o[0].b)};
    o[1] = {doubled(o[1].a), doubled(o[1].b)};
  }
  QB_KI static void bytes_fp4(const std::byte* line, std::byte* out) {
    Operand o[2];
    fp4(line, o);
    put(out, o[0].a);
    put(out + 32, o[0].b);
    put(out + 64, o[1].a);
    put(out + 96, o[1].b);
  }
  QB_KI static Float powers(const std::byte* bytes) { return {powers_avx2(bytes), powers_avx2(bytes + 8)}; }
  QB_KI static Float scales(const std::byte* bytes) { return {scales_avx2(bytes), scales_avx2(bytes + 8)}; }
  static constexpr float scale_unit = 1;
  QB_KI static void two_scales(const std::byte* bytes, Float* s) {
    s[0] = scales(bytes);
    s[1] = scales(bytes + 16);
  }
};

}  // namespace
}  // namespace qb::kernel
