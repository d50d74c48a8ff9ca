// What the loops of all panel kernels need: groups of columns, and the scales that come last. As panel_body.h, compiled for the instruction set of the
// including file, which defines QB_KI.
#pragma once

#include <cstring>

#include "kernel/panels.h"

#define QB_UNROLL _Pragma("GCC unroll 16")

namespace qb::kernel {
namespace {

inline constexpr int64_t prefetch_bytes = 4096;  // ahead of the line that is read: less and more were slower on Zen 4

// Groups of columns under one scale (and zero point) of each row; one group where the whole row has one.
struct Groups {
  QB_KI Groups(Weights kind, const RunArgs& a) : scales(a.weight->scales), zeros(a.weight->zeros) {
    const ir::QuantType& type = a.problem->scheme.weight;
    const ir::Layout layout = form_of(kind).layout;
    const int64_t unit = ir::unit_of(layout), group = group_columns(type);
    apart = group != 0;
    columns = apart ? panel_group(layout, type) : std::max((a.problem->k + unit - 1) / unit * unit, unit);
    count = apart ? (a.problem->k + group - 1) / group : 1;
    elem = panel_scale_elem(type);
    exact = apart && elem != Elem::f32;
    row_zeros = type.block.rows != 0;
    if (zeros != nullptr && !row_zeros) std::memset(one_zero, std::to_integer<int>(zeros[0]), sizeof one_zero);
  }
  QB_KI const std::byte* scales_of(int64_t panel, int64_t g) const { return scales + (panel * count + g) * (elem == Elem::f32 ? 64 : 16); }
  QB_KI const std::byte* zeros_of(int64_t panel, int64_t g) const { return row_zeros ? zeros + (panel * count + g) * 16 : one_zero; }

  int64_t columns = 0, count = 1;  // columns: in panels
  bool apart = false;              // scales that differ along a row
  bool exact = false;              // which times any code are bfloat16 numbers
  bool row_zeros = false;
  Elem elem = Elem::f32;
  const std::byte *scales, *zeros;
  std::byte one_zero[ir::panel_rows] = {};
};

// Sixteen scales of panel_scale as numbers.
template <class V>
QB_KI auto group_scales(const Groups& groups, int64_t panel, int64_t g) {
  const std::byte* at = groups.scales_of(panel, g);
  if (groups.elem == Elem::e4m3) return V::scales(at);
  if (groups.elem == Elem::e8m0) return V::powers(at);
  return V::load(reinterpret_cast<const float*>(at));
}

// The scales and the bias of the rows of up to N panels, which come last. In float32 where the scale of a row times that of a token can neither overflow nor
// become subnormal, in double where it could: so no intermediate does either way.
template <int64_t N>
struct RowScales {
  QB_KI RowScales(const RunArgs& a, int64_t panel, int64_t panels) : first(panel * ir::panel_rows), count(std::min(panels * ir::panel_rows, a.n_end - first)) {
    const auto* grid = reinterpret_cast<const float*>(a.weight->scales);
    const ir::QuantType& type = a.problem->scheme.weight;
    const bool each = type.block == ir::Block{1, 0} && !type.plain();
    const float all = type.two_level() ? a.weight->global : !type.plain() && type.block == ir::Block{0, 0} ? grid[0] : 1.0F;
    const float* const b = a.weight->bias;
    uint32_t beyond = 0;
    for (int64_t r = 0; r < N * ir::panel_rows; ++r) {
      scale[r] = each && r < count ? grid[first + r] : all;
      bias[r] = b != nullptr && r < count ? b[first + r] : 0;
      beyond |= moderate(scale[r]) ? 0U : 1U;
    }
    narrow = beyond == 0;
  }
  // One token's results: its sums of all panels follow each other. Of integers `plus` is still to be added, modulo 2^32.
  QB_KI void finish(const int32_t* sums, int32_t plus, double token, float* y) const {
    int32_t all[N * ir::panel_rows];
    for (int64_t r = 0; r < N * ir::panel_rows; ++r) all[r] = static_cast<int32_t>(static_cast<uint32_t>(sums[r]) + static_cast<uint32_t>(plus));
    finish(all, token, y);
  }
  template <class T>
  QB_KI void finish(const T* sums, double token, float* y) const {
    float out[N * ir::panel_rows];
    const auto single = static_cast<float>(token);
    if (narrow && moderate(single)) {
      for (int64_t r = 0; r < N * ir::panel_rows; ++r) out[r] = static_cast<float>(sums[r]) * (scale[r] * single) + bias[r];
    } else {
      for (int64_t r = 0; r < N * ir::panel_rows; ++r)
        out[r] = static_cast<float>(static_cast<double>(sums[r]) * static_cast<double>(scale[r]) * token + static_cast<double>(bias[r]));
    }
    if (count == N * ir::panel_rows) {
      std::memcpy(y + first, out, sizeof out);
    } else {
      std::memcpy(y + first, out, static_cast<size_t>(count) * sizeof(float));
    }
  }
  // Within 2^-62 and 2^62, or 0. Not so: NaN.
  QB_KI static bool moderate(float x) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x) & f32_abs_mask;
    return magnitude == 0 || magnitude - 0x20800000U <= 0x3E000000U;
  }
  int64_t first, count;
  bool narrow;
  alignas(64) float scale[N * ir::panel_rows], bias[N * ir::panel_rows];
};

}  // namespace
}  // namespace qb::kernel
