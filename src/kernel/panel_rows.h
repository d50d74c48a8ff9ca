// What the loops of all panel kernels need: groups of columns, and the scales that come last. As panel_body.h, compiled for the instruction set of the
// including file, which defines QB_KI.
#pragma once

#include <cstring>

#include "kernel/panels.h"

#define QB_UNROLL _Pragma("GCC unroll 16")

namespace qb::kernel {
namespace {

inline constexpr int64_t prefetch_bytes = 2048;  // ahead of the line that is read

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

// The scales and the bias of one panel's rows, which come last, in double: with a sum and a token's scale no intermediate overflows.
struct RowScales {
  QB_KI RowScales(const RunArgs& a, int64_t first, int64_t rows) : count(rows) {
    const auto* grid = reinterpret_cast<const float*>(a.weight->scales);
    const ir::QuantType& type = a.problem->scheme.weight;
    if (type.block == ir::Block{1, 0} && !type.plain()) {
      copy(grid + first, scale);
    } else {
      const float all = type.two_level() ? a.weight->global : !type.plain() && type.block == ir::Block{0, 0} ? grid[0] : 1.0F;
      for (float& s : scale) s = all;
    }
    if (a.weight->bias != nullptr) {
      copy(a.weight->bias + first, bias);
    } else {
      for (float& b : bias) b = 0;
    }
  }
  // One token's results of the panel.
  template <class T>
  QB_KI void finish(const T* sums, float token, float* y) const {
    float out[ir::panel_rows];
    for (int64_t r = 0; r < ir::panel_rows; ++r) {
      out[r] = static_cast<float>(static_cast<double>(sums[r]) * static_cast<double>(scale[r]) * static_cast<double>(token) + static_cast<double>(bias[r]));
    }
    if (count == ir::panel_rows) {
      std::memcpy(y, out, sizeof out);
    } else {
      std::memcpy(y, out, static_cast<size_t>(count) * sizeof(float));
    }
  }
  QB_KI void copy(const float* from, float* to) const {
    if (count == ir::panel_rows) return std::memcpy(to, from, ir::panel_rows * sizeof(float)), void();
    for (int64_t r = 0; r < ir::panel_rows; ++r) to[r] = r < count ? from[r] : 0.0F;
  }
  int64_t count;
  alignas(64) float scale[ir::panel_rows], bias[ir::panel_rows];
};

}  // namespace
}  // namespace qb::kernel
