// The loops of the kernels that multiply integers, written once for all instruction sets; as panel_body.h, but sums are exact and scales come after them.
//
// The including file defines QB_K and QB_KI (panel_body.h) and a type V with the instructions:
//   X                       how activations lie in the workspace: int8_t or int16_t
//   exchanged               whether columns 1 and 2 of every four are exchanged there
//   Int, Float, Operand     16 sums of each kind, one for each row; four columns of 16 rows, without sign
//   zero(), load(int32_t*), store(int32_t*, Int), splat(int32_t), add(Int, Int)
//   minus_product(a, b, i)  a - b * i
//   zeros(bytes)            16 zero points
//   float_zero(), load(float*), store(float*, Float), splat(float), times(Float, Float), mul_add(Int, Float, Float)
//   u8(line), int8(line)    the operand of 64 bytes without a sign, and of a panel_int8 line
//   int4(line, o[2])        the operands of a panel_int4 line
//   bytes8(line, out), bytes4(line, out)  the same as bytes without a sign: 64 and 128 of them
//   fp4(line, o[2]), bytes_fp4(line, out), scales, powers, two_scales, scale_unit   where there are weights of FP4: twice their numbers, plus 12; as
//   panel_body.h
//                           has them
//   dot(Int, operand, x)    adds the products with four activations
//   short_groups            whether groups of 16 and 32 columns have loops of their own
//   few, mr, nr             tokens up to which the form for few tokens runs (0: there is none); tokens x panels of the other's registers where rows have one
//   scale, and group_mr, group_nr      where groups have
#pragma once

#include <cstring>

#include "kernel/integers.h"
#include "kernel/panel_rows.h"

namespace qb::kernel {
namespace {

template <class V, Weights kind>
QB_K void prepare_integers(const RunArgs& a, int64_t m_begin, int64_t m_end) noexcept {
  using X = typename V::X;
  const Problem& p = *a.problem;
  const IntegersPrepared<X> to(kind, p, a.workspace);
  const IntegerInputs in = to.in.value_or(IntegerInputs{});
  const Groups groups(kind, a);
  const int64_t group = groups.apart ? group_columns(p.scheme.weight) : p.k;
  const float nan = std::bit_cast<float>(0x7FC00000U);
  inputs::IntegerScale s{a.weight->input_scale, static_cast<float>(a.weight->input_zero)};
  if (to.in && !in.fixed && in.columns == 0) s = inputs::integer_scale(in, a.x, p.m * p.k);
  for (int64_t m = m_begin; m < m_end; ++m) {
    const float* x = a.x + m * p.k;
    X* const row = to.x + m * to.ld;
    X* const in_order = a.weight->columns == nullptr ? row : to.moved + m * p.k;
    if (to.in && !in.fixed && in.columns != 0) s = inputs::integer_scale(in, x, p.k);
    bool sound = true;
    if (to.in) {
      // What is not a number, or infinite, makes all of the token NaN, as a product with it would.
      sound = inputs::integer_codes(in, x, p.k, s, in_order) && (std::bit_cast<uint32_t>(s.scale) & f32_abs_mask) < f32_inf_bits;
    } else {
      inputs::nvfp4_integers(x, p.k, s.scale, in_order, to.group_scale + m, to.stride);
    }
    move_row(*a.weight, in_order, to.places, to.columns, row);
    to.scale[m] = sound ? s.scale : nan;
    const int32_t zero = to.in && sound ? static_cast<int32_t>(s.zero) : 0;
    to.zero[m] = zero;
    for (int64_t g = 0; g < to.groups; ++g) {
      const int64_t first = g * groups.columns, end = std::min(to.places, first + groups.columns);
      const int64_t sum = inputs::sum_of(row + first, end - first) - zero * (std::min(p.k, (g + 1) * group) - g * group);
      to.sum[to.at(g, m)] = static_cast<int32_t>(sum);
      to.start[to.at(g, m)] = static_cast<int32_t>(-sum * bias_of(kind));
    }
    if (!V::exchanged) continue;
    for (int64_t j = 0; j < to.columns; j += 4) std::swap(row[j + 1], row[j + 2]);
  }
  if (to.ones == nullptr || m_begin > 0) return;
  for (int64_t j = 0; j < to.columns; ++j) {
    const int64_t column = V::exchanged && j % 4 == 1 ? j + 1 : V::exchanged && j % 4 == 2 ? j - 1 : j;
    to.ones[j] = column < to.places && (a.weight->columns == nullptr || a.weight->columns[column] >= 0) ? 1 : 0;
  }
}

// --- Few tokens ----------------------------------------------------------------------------------------------------------------------------------------------

template <class V, Weights kind>
struct IntegerLines;
template <class V>
struct IntegerLines<V, Weights::int4> {
  static constexpr int operands = 2, together = 2;
  QB_KI static void load(const std::byte* line, typename V::Operand* o) { V::int4(line, o); }
};
template <class V>
struct IntegerLines<V, Weights::fp4> {
  static constexpr int operands = 2, together = 2;
  QB_KI static void load(const std::byte* line, typename V::Operand* o) { V::fp4(line, o); }
};
template <class V>
struct IntegerLines<V, Weights::int8> {
  static constexpr int operands = 1, together = 4;
  QB_KI static void load(const std::byte* line, typename V::Operand* o) { o[0] = V::int8(line); }
};

// Those of integers are float32 multipliers.
template <class V, Weights kind>
QB_KI typename V::Float scales_of_group(const Groups& groups, int64_t panel, int64_t g) {
  if constexpr (kind == Weights::fp4) {
    return group_scales<V>(groups, panel, g);
  } else {
    return V::load(reinterpret_cast<const float*>(groups.scales_of(panel, g)));
  }
}
template <class V, Weights kind>
constexpr double scale_unit_of() {
  if constexpr (kind == Weights::fp4) return static_cast<double>(V::scale_unit);
  return 1;
}

// What integers are that are multiplied, in the units of the numbers that they stand for.
template <class V, Weights kind>
QB_KI double unit_of_products(const IntegersPrepared<typename V::X>& in) {
  return (kind == Weights::fp4 ? 0.5 : 1.0) * (in.group_scale != nullptr ? 0.5 : 1.0);
}

// sum[m] += the dot products of `lines` lines with token m, in several chains.
constexpr int chains_of(int tokens) {
  return tokens == 1 ? 4 : tokens <= 4 ? 2 : 1;
}
template <class V, Weights kind, int M, int chains = chains_of(M)>
QB_KI void add_lines(const std::byte* w, int64_t lines, const typename V::X* x, int64_t ld, typename V::Int* sum) {
  using L = IntegerLines<V, kind>;
  constexpr int step = L::operands;
  typename V::Int t[M][chains];
  QB_UNROLL for (int m = 0; m < M; ++m) {
    t[m][0] = sum[m];
    QB_UNROLL for (int c = 1; c < chains; ++c) t[m][c] = V::zero();
  }
  int64_t l = 0;
  for (; l + L::together <= lines; l += L::together, w += 64 * L::together, x += 4 * step * L::together) {
    QB_UNROLL for (int u = 0; u < L::together; ++u) {
      __builtin_prefetch(w + 64 * u + prefetch_bytes);
      typename V::Operand o[step];
      L::load(w + 64 * u, o);
      QB_UNROLL for (int i = 0; i < step; ++i) {
        QB_UNROLL for (int m = 0; m < M; ++m) t[m][(u * step + i) % chains] = V::dot(t[m][(u * step + i) % chains], o[i], x + m * ld + 4 * (u * step + i));
      }
    }
  }
  for (; l < lines; ++l, w += 64, x += 4 * step) {
    typename V::Operand o[step];
    L::load(w, o);
    QB_UNROLL for (int i = 0; i < step; ++i) {
      QB_UNROLL for (int m = 0; m < M; ++m) t[m][i % chains] = V::dot(t[m][i % chains], o[i], x + m * ld + 4 * i);
    }
  }
  QB_UNROLL for (int m = 0; m < M; ++m) {
    sum[m] = t[m][0];
    QB_UNROLL for (int c = 1; c < chains; ++c) sum[m] = V::add(sum[m], t[m][c]);
  }
}

// The sums of a panel of FP4 with E4M3 scales for groups of 16, two of which become numbers at once, in units of V::scale_unit. One chain: groups depend on
// each other in nothing but their last addition.
template <class V, int M>
QB_KI void short_integer_groups(const std::byte* w, const Groups& groups, int64_t panel, const IntegersPrepared<typename V::X>& in, typename V::Float* sum) {
  const std::byte* s = groups.scales_of(panel, 0);
  for (int64_t g = 0; g < groups.count; g += 2, w += 256, s += 2 * ir::panel_rows) {
    __builtin_prefetch(s + 512);
    std::byte last[2 * ir::panel_rows] = {};
    if (g + 1 == groups.count) std::memcpy(last, s, ir::panel_rows);
    typename V::Float scale[2];
    V::two_scales(g + 1 == groups.count ? last : s, scale);
    QB_UNROLL for (int64_t i = 0; i < 2; ++i) {
      if (g + i == groups.count) break;
      typename V::Int t[M];
      QB_UNROLL for (int m = 0; m < M; ++m) t[m] = V::splat(in.start[in.at(g + i, m)]);
      add_lines<V, Weights::fp4, M, 1>(w + 128 * i, 2, in.x + (g + i) * 16, in.ld, t);
      if (in.ones != nullptr) {
        typename V::Int u[1] = {V::zero()};
        add_lines<V, Weights::fp4, 1, 1>(w + 128 * i, 2, in.ones + (g + i) * 16, 0, u);
        QB_UNROLL for (int m = 0; m < M; ++m) t[m] = V::minus_product(t[m], u[0], in.zero[m]);
      }
      if (in.group_scale != nullptr) {
        QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(t[m], V::times(scale[i], V::splat(in.group_scale[in.at(g + i, m)])), sum[m]);
      } else {
        QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(t[m], scale[i], sum[m]);
      }
    }
  }
}

template <class V, Weights kind, int M>
QB_K void few_tokens_integers(const RunArgs& a) noexcept {
  constexpr Form form = form_of(kind);
  const Problem& p = *a.problem;
  const IntegersPrepared<typename V::X> in(kind, p, a.workspace);
  const Groups groups(kind, a);
  const int64_t each = panel_bytes(kind, p), lines = each / 64, together = groups.columns / form.columns;
  const bool pairs = kind == Weights::fp4 && groups.elem == Elem::e4m3 && groups.columns == 16;
  const double unit = unit_of_products<V, kind>(in) * (pairs ? scale_unit_of<V, kind>() : 1.0);
  for (int64_t first = a.n_begin; first < a.n_end; first += ir::panel_rows) {
    const int64_t panel = first / ir::panel_rows;
    const std::byte* w = a.weight->codes + panel * each;
    typename V::Float sum[M];
    typename V::Int t[M];
    QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::float_zero(), t[m] = V::zero();
    if constexpr (kind == Weights::fp4) {
      if (pairs) short_integer_groups<V, M>(w, groups, panel, in, sum);
    }
    for (int64_t g = 0, l = 0; !pairs && l < lines; ++g, l += together) {
      QB_UNROLL for (int m = 0; m < M; ++m) t[m] = V::splat(in.start[in.at(g, m)]);
      add_lines<V, kind, M>(w + l * 64, std::min(together, lines - l), in.x + g * groups.columns, in.ld, t);
      if (a.weight->zeros != nullptr) {
        const typename V::Int z = V::zeros(groups.zeros_of(panel, g));
        QB_UNROLL for (int m = 0; m < M; ++m) t[m] = V::minus_product(t[m], z, in.sum[in.at(g, m)]);
      }
      if (in.ones != nullptr) {
        typename V::Int u[1] = {V::zero()};
        add_lines<V, kind, 1>(w + l * 64, std::min(together, lines - l), in.ones + g * groups.columns, 0, u);
        QB_UNROLL for (int m = 0; m < M; ++m) t[m] = V::minus_product(t[m], u[0], in.zero[m]);
      }
      if (!groups.apart) break;
      const typename V::Float scale = scales_of_group<V, kind>(groups, panel, g);
      QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(t[m], scale, sum[m]);
    }
    const RowScales<1> rows(a, panel, 1);
    QB_UNROLL for (int m = 0; m < M; ++m) {
      float* const y = a.y + m * p.n;
      if (groups.apart) {
        alignas(64) float sums[ir::panel_rows];
        V::store(sums, sum[m]);
        rows.finish(sums, static_cast<double>(in.scale[m]) * unit, y);
      } else {
        alignas(64) int32_t sums[ir::panel_rows];
        V::store(sums, t[m]);
        rows.finish(sums, static_cast<double>(in.scale[m]), y);
      }
    }
  }
}

// --- Many tokens: a piece of some panels becomes bytes without a sign once, and is multiplied with all of them -----------------------------------------------

// Bytes of a piece stay in the second-level cache, with the activations of the tokens that share it.
inline constexpr int64_t row_piece = 1024, group_piece = 512;  // columns; of groups as many as fit, or one
inline constexpr int64_t integer_tokens_at_once = 512;         // that share a piece

// What one multiplication of a piece needs besides bytes and activations.
struct Piece {
  int64_t stride = 0;  // bytes from one panel to the next
  int64_t first_group = 0, end_group = 0;
  int64_t lines = 0, group_lines = 0;  // in all, and in a group
};

// Rows with one scale: adds to the sums c of R tokens x N panels.
template <class V, int R, int N>
QB_KI void multiply_rows_of_integers(const std::byte* w, const Piece& piece, const typename V::X* x, int64_t ld, int32_t* c, int64_t ldc) {
  typename V::Int t[R][N];
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = V::load(c + m * ldc + n * ir::panel_rows);
  }
  for (int64_t l = 0; l < piece.lines; ++l, w += 64, x += 4) {
    typename V::Operand o[N];
    QB_UNROLL for (int n = 0; n < N; ++n) o[n] = V::u8(w + n * piece.stride);
    QB_UNROLL for (int m = 0; m < R; ++m) {
      QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = V::dot(t[m][n], o[n], x + m * ld);
    }
  }
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) V::store(c + m * ldc + n * ir::panel_rows, t[m][n]);
  }
}

// t += `lines` lines of N panels by R tokens. Four lines at a time: a shorter loop would end too often.
template <class V, int R, int N>
QB_KI void add_products(const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, typename V::Int (&t)[R][N]) {
  typename V::Operand o[N];
  QB_UNROLL for (int n = 0; n < N; ++n) o[n] = V::u8(w + n * stride);
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = V::dot(t[m][n], o[n], x + m * ld);
  }
}
template <class V, int R, int N>
QB_KI void add_products(const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, typename V::Int (&t)[R][N]) {
  for (; lines >= 4; lines -= 4, w += 4 * 64, x += 4 * 4) {
    QB_UNROLL for (int l = 0; l < 4; ++l) add_products<V, R, N>(w + 64 * l, stride, x + 4 * l, ld, t);
  }
  for (; lines > 0; --lines, w += 64, x += 4) add_products<V, R, N>(w, stride, x, ld, t);
}

// What groups with scales of their own need besides.
template <class V>
struct GroupsOfPiece {
  const Groups& groups;
  const IntegersPrepared<typename V::X>& in;
  int64_t panel, token;  // the first ones
  const float* scales;   // of the panels' groups in this piece, 16 floats each
  int64_t scale_stride;  // from one panel's to the next
  const int32_t* u;      // the sums of the bytes of each panel's groups, where activations have zero points
  int64_t u_stride;
};

// Adds the products t of group g, less what zero points take away, times the group's scales.
template <class V, int R, int N>
QB_KI void add_group(const Piece& piece, int64_t g, const GroupsOfPiece<V>& of, typename V::Int (&t)[R][N], typename V::Float (&sum)[R][N]) {
  const IntegersPrepared<typename V::X>& in = of.in;
  const int64_t within = (g - piece.first_group) * ir::panel_rows;
  if (of.groups.zeros != nullptr) {
    QB_UNROLL for (int n = 0; n < N; ++n) {
      const typename V::Int z = V::zeros(of.groups.zeros_of(of.panel + n, g));
      QB_UNROLL for (int m = 0; m < R; ++m) t[m][n] = V::minus_product(t[m][n], z, in.sum[in.at(g, of.token + m)]);
    }
  }
  if (in.ones != nullptr) {
    QB_UNROLL for (int n = 0; n < N; ++n) {
      const typename V::Int all = V::load(of.u + n * of.u_stride + within);
      QB_UNROLL for (int m = 0; m < R; ++m) t[m][n] = V::minus_product(t[m][n], all, in.zero[of.token + m]);
    }
  }
  QB_UNROLL for (int n = 0; n < N; ++n) {
    const typename V::Float scale = V::load(of.scales + n * of.scale_stride + within);
    QB_UNROLL for (int m = 0; m < R; ++m) sum[m][n] =
        V::mul_add(t[m][n], in.group_scale == nullptr ? scale : V::times(scale, V::splat(in.group_scale[in.at(g, of.token + m)])), sum[m][n]);
  }
}

// In groups of any size, with or without zero points.
template <class V, int R, int N>
QB_KI void multiply_groups_of_integers(const std::byte* w, const Piece& piece, const typename V::X* x, int64_t ld, float* c, int64_t ldc,
                                       const GroupsOfPiece<V>& of) {
  const IntegersPrepared<typename V::X>& in = of.in;
  typename V::Float sum[R][N];
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) sum[m][n] = V::load(c + m * ldc + n * ir::panel_rows);
  }
  int64_t left = piece.lines;
  for (int64_t g = piece.first_group; g < piece.end_group; ++g) {
    const int64_t lines = std::min(left, piece.group_lines);
    typename V::Int t[R][N];
    QB_UNROLL for (int m = 0; m < R; ++m) {
      QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = V::splat(in.start[in.at(g, of.token + m)]);
    }
    add_products<V, R, N>(w, piece.stride, x, ld, lines, t);
    left -= lines;
    w += 64 * lines;
    x += 4 * lines;
    add_group<V, R, N>(piece, g, of, t, sum);
  }
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) V::store(c + m * ldc + n * ir::panel_rows, sum[m][n]);
  }
}

// In whole groups without zero points: of so many lines, where a loop over the lines would take as long as they do, or, with 0, of any number.
template <class V, int R, int N, int lines, bool scaled>
QB_KI void multiply_plain_groups(const std::byte* w, const Piece& piece, const typename V::X* x, int64_t ld, float* c, int64_t ldc,
                                 const GroupsOfPiece<V>& of) {
  typename V::Float sum[R][N];
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) sum[m][n] = V::load(c + m * ldc + n * ir::panel_rows);
  }
  const int64_t first = of.in.at(piece.first_group, of.token), stride = of.in.stride, in_group = lines == 0 ? piece.group_lines : lines;
  const int32_t* start = of.in.start + first;
  const float *by_token = scaled ? of.in.group_scale + first : nullptr, *scales = of.scales;
  for (int64_t g = piece.first_group; g < piece.end_group; ++g, start += stride, scales += ir::panel_rows, w += 64 * in_group, x += 4 * in_group) {
    typename V::Int t[R][N];
    QB_UNROLL for (int m = 0; m < R; ++m) {
      QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = V::splat(start[m]);
    }
    if constexpr (lines == 0) {
      add_products<V, R, N>(w, piece.stride, x, ld, in_group, t);
    } else {
      QB_UNROLL for (int l = 0; l < lines; ++l) add_products<V, R, N>(w + 64 * l, piece.stride, x + 4 * l, ld, t);
    }
    QB_UNROLL for (int n = 0; n < N; ++n) {
      const typename V::Float scale = V::load(scales + n * of.scale_stride);
      QB_UNROLL for (int m = 0; m < R; ++m) {
        if constexpr (scaled) {
          sum[m][n] = V::mul_add(t[m][n], V::times(scale, V::splat(by_token[m])), sum[m][n]);
        } else {
          sum[m][n] = V::mul_add(t[m][n], scale, sum[m][n]);
        }
      }
    }
    if constexpr (scaled) by_token += stride;
  }
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) V::store(c + m * ldc + n * ir::panel_rows, sum[m][n]);
  }
}

// `rows` of at most R tokens: the right instance.
template <class V, int R, int N>
QB_K void multiply_some(int64_t rows, const std::byte* w, const Piece& piece, const typename V::X* x, int64_t ld, int32_t* c, int64_t ldc) {
  if (rows == R) return multiply_rows_of_integers<V, R, N>(w, piece, x, ld, c, ldc);
  if constexpr (R > 1) multiply_some<V, R - 1, N>(rows, w, piece, x, ld, c, ldc);
}
template <class V, int R, int N>
QB_K void multiply_some(int64_t rows, const std::byte* w, const Piece& piece, const typename V::X* x, int64_t ld, float* c, int64_t ldc,
                        const GroupsOfPiece<V>& of) {
  if constexpr (R == V::group_mr && N == V::group_nr && V::short_groups) {
    const bool whole = piece.lines == (piece.end_group - piece.first_group) * piece.group_lines;
    if (rows == R && whole && of.groups.zeros == nullptr && of.in.ones == nullptr) {
      if (of.in.group_scale != nullptr) return multiply_plain_groups<V, R, N, 4, true>(w, piece, x, ld, c, ldc, of);  // of 16 columns
      if (piece.group_lines == 4) return multiply_plain_groups<V, R, N, 4, false>(w, piece, x, ld, c, ldc, of);
      if (piece.group_lines == 8) return multiply_plain_groups<V, R, N, 8, false>(w, piece, x, ld, c, ldc, of);
      return multiply_plain_groups<V, R, N, 0, false>(w, piece, x, ld, c, ldc, of);
    }
  }
  if (rows == R) return multiply_groups_of_integers<V, R, N>(w, piece, x, ld, c, ldc, of);
  if constexpr (R > 1) multiply_some<V, R - 1, N>(rows, w, piece, x, ld, c, ldc, of);
}

// A piece of up to nr (group_nr) panels by all its tokens: by registers; tile_integers.h has another way.
template <class V>
struct PieceProducts {
  using X = typename V::X;

  // Rows with one scale: adds to the sums c [tokens, ldc], or to zeros where it is the first piece.
  QB_KI static void rows(int64_t panels, const std::byte* w, const Piece& piece, const X* x, int64_t ld, int32_t* c, int64_t ldc, int64_t tokens, bool first) {
    if (first) std::memset(c, 0, static_cast<size_t>(tokens * ldc) * sizeof *c);
    for (int64_t m = 0; m < tokens; m += V::mr) {
      const int64_t here = std::min<int64_t>(V::mr, tokens - m);
      if (panels == V::nr) {
        multiply_some<V, V::mr, V::nr>(here, w, piece, x + m * ld, ld, c + m * ldc, ldc);
      } else {
        for (int64_t n = 0; n < panels; ++n)
          multiply_some<V, V::mr, 1>(here, w + n * piece.stride, piece, x + m * ld, ld, c + m * ldc + n * ir::panel_rows, ldc);
      }
    }
  }

  // Groups with scales of their own.
  QB_KI static void groups(int64_t panels, const std::byte* w, const Piece& piece, const X* x, int64_t ld, float* c, int64_t ldc, int64_t tokens,
                           const GroupsOfPiece<V>& all) {
    for (int64_t m = 0; m < tokens; m += V::group_mr) {
      const int64_t here = std::min<int64_t>(V::group_mr, tokens - m);
      GroupsOfPiece<V> of = all;
      of.token += m;
      if (panels == V::group_nr) {
        multiply_some<V, V::group_mr, V::group_nr>(here, w, piece, x + m * ld, ld, c + m * ldc, ldc, of);
      } else {
        for (int64_t n = 0; n < panels; ++n, ++of.panel, of.scales += of.scale_stride, of.u += of.u_stride)
          multiply_some<V, V::group_mr, 1>(here, w + n * piece.stride, piece, x + m * ld, ld, c + m * ldc + n * ir::panel_rows, ldc, of);
      }
    }
  }
};

// `count` columns of a panel as bytes without a sign, in lines as panel_int8 has them. As many that follow will be wanted when these are multiplied.
template <class V, Weights kind>
QB_KI void to_bytes(const std::byte* codes, int64_t count, std::byte* out) {
  const int64_t ahead = count / form_of(kind).columns * 64;
  for (int64_t at = 0; at < count; at += form_of(kind).columns, codes += 64, out += form_of(kind).columns * ir::panel_rows) {
    __builtin_prefetch(codes + ahead, 0, 2);
    if constexpr (kind == Weights::int4) {
      V::bytes4(codes, out);
    } else if constexpr (kind == Weights::fp4) {
      V::bytes_fp4(codes, out);
    } else {
      V::bytes8(codes, out);
    }
  }
}

// The sum of the bytes of each row, as far as there are columns.
template <class V>
QB_KI typename V::Int sum_bytes(const std::byte* w, int64_t lines, const typename V::X* ones, typename V::Int sum) {
  for (int64_t l = 0; l < lines; ++l) sum = V::dot(sum, V::u8(w + 64 * l), ones + 4 * l);
  return sum;
}

template <class V, Weights kind>
QB_K void many_tokens_integers(const RunArgs& a) noexcept {
  constexpr Form form = form_of(kind);
  const Problem& p = *a.problem;
  const IntegersPrepared<typename V::X> in(kind, p, a.workspace);
  constexpr int64_t nr = V::nr, ldc = nr * ir::panel_rows;
  const int64_t each = panel_bytes(kind, p), end = (a.n_end + ir::panel_rows - 1) / ir::panel_rows;
  const Groups groups(kind, a);
  alignas(64) std::byte scratch[nr * row_piece * ir::panel_rows];
  alignas(64) int32_t c[integer_tokens_at_once * ldc], u[nr * ir::panel_rows];
  for (int64_t panel = a.n_begin / ir::panel_rows; panel < end; panel += nr) {
    const int64_t panels = std::min(nr, end - panel);
    for (int64_t m0 = 0; m0 < p.m; m0 += integer_tokens_at_once) {
      const int64_t tokens = std::min(integer_tokens_at_once, p.m - m0);
      std::memset(u, 0, sizeof u);
      for (int64_t k0 = 0; k0 < in.columns; k0 += row_piece) {
        const int64_t columns = std::min(row_piece, in.columns - k0);
        const Piece piece{row_piece * ir::panel_rows, 0, 0, columns / 4, 0};
        for (int64_t n = 0; n < panels; ++n) {
          std::byte* const bytes = scratch + n * piece.stride;
          int32_t* const all = u + n * ir::panel_rows;
          to_bytes<V, kind>(a.weight->codes + (panel + n) * each + k0 / form.columns * 64, columns, bytes);
          if (in.ones != nullptr) V::store(all, sum_bytes<V>(bytes, piece.lines, in.ones + k0, V::load(all)));
        }
        PieceProducts<V>::rows(panels, scratch, piece, in.x + m0 * in.ld + k0, in.ld, c, ldc, tokens, k0 == 0);
      }
      for (int64_t m = 0; (groups.zeros != nullptr || in.ones != nullptr) && m < tokens; ++m) {
        for (int64_t n = 0; n < panels; ++n) {
          int32_t* const sums = c + m * ldc + n * ir::panel_rows;
          if (groups.zeros != nullptr) V::store(sums, V::minus_product(V::load(sums), V::zeros(groups.zeros_of(panel + n, 0)), in.sum[m0 + m]));
          if (in.ones != nullptr) V::store(sums, V::minus_product(V::load(sums), V::load(u + n * ir::panel_rows), in.zero[m0 + m]));
        }
      }
      const RowScales<nr> rows(a, panel, panels);
      for (int64_t m = 0; m < tokens; ++m) rows.finish(c + m * ldc, in.start[m0 + m], static_cast<double>(in.scale[m0 + m]), a.y + (m0 + m) * p.n);
    }
  }
}

template <class V, Weights kind>
QB_K void many_tokens_integer_groups(const RunArgs& a) noexcept {
  constexpr Form form = form_of(kind);
  const Problem& p = *a.problem;
  const IntegersPrepared<typename V::X> in(kind, p, a.workspace);
  constexpr int64_t nr = V::group_nr, ldc = nr * ir::panel_rows;
  const int64_t each = panel_bytes(kind, p), end = (a.n_end + ir::panel_rows - 1) / ir::panel_rows;
  const Groups groups(kind, a);
  constexpr int64_t most_groups = group_piece / ir::unit_of(form.layout), u_stride = most_groups * ir::panel_rows;
  const int64_t groups_at_once = std::max<int64_t>(1, group_piece / groups.columns);
  alignas(64) std::byte scratch[nr * most_group * ir::panel_rows];
  alignas(64) float c[integer_tokens_at_once * ldc];
  alignas(64) int32_t u[nr * u_stride];
  alignas(64) float numbers[kind == Weights::fp4 ? nr * u_stride : 1];  // scales that are stored as bytes
  const bool as_stored = kind != Weights::fp4 || groups.elem == Elem::f32;
  const double unit = unit_of_products<V, kind>(in);
  for (int64_t panel = a.n_begin / ir::panel_rows; panel < end; panel += nr) {
    const int64_t panels = std::min(nr, end - panel);
    for (int64_t m0 = 0; m0 < p.m; m0 += integer_tokens_at_once) {
      const int64_t tokens = std::min(integer_tokens_at_once, p.m - m0);
      std::memset(c, 0, static_cast<size_t>(tokens * ldc) * sizeof(float));
      for (int64_t g0 = 0; g0 < groups.count; g0 += groups_at_once) {
        const int64_t k0 = g0 * groups.columns, columns = std::min(groups_at_once * groups.columns, in.columns - k0);
        const Piece piece{most_group * ir::panel_rows, g0, std::min(g0 + groups_at_once, groups.count), columns / 4, groups.columns / 4};
        for (int64_t n = 0; n < panels; ++n) {
          std::byte* const bytes = scratch + n * piece.stride;
          to_bytes<V, kind>(a.weight->codes + (panel + n) * each + k0 / form.columns * 64, columns, bytes);
          for (int64_t g = g0; !as_stored && g < piece.end_group; ++g)
            V::store(numbers + n * u_stride + (g - g0) * ir::panel_rows, scales_of_group<V, kind>(groups, panel + n, g));
          for (int64_t g = g0, l = 0; in.ones != nullptr && g < piece.end_group; ++g, l += piece.group_lines) {
            const int64_t lines = std::min(piece.group_lines, piece.lines - l);
            V::store(u + n * u_stride + (g - g0) * ir::panel_rows, sum_bytes<V>(bytes + 64 * l, lines, in.ones + k0 + 4 * l, V::zero()));
          }
        }
        const float* const scales = as_stored ? reinterpret_cast<const float*>(groups.scales_of(panel, g0)) : numbers;
        const int64_t scale_stride = as_stored ? groups.count * ir::panel_rows : u_stride;
        PieceProducts<V>::groups(panels, scratch, piece, in.x + m0 * in.ld + k0, in.ld, c, ldc, tokens,
                                 GroupsOfPiece<V>{groups, in, panel, m0, scales, scale_stride, u, u_stride});
      }
      const RowScales<nr> rows(a, panel, panels);
      for (int64_t m = 0; m < tokens; ++m) rows.finish(c + m * ldc, static_cast<double>(in.scale[m0 + m]) * unit, a.y + (m0 + m) * p.n);
    }
  }
}

template <class V, Weights kind, int M>
void run_few_integers(const RunArgs& a) noexcept {
  if (a.problem->m == M) return few_tokens_integers<V, kind, M>(a);
  if constexpr (M > 1) run_few_integers<V, kind, M - 1>(a);
}

template <class V, Weights kind>
void run_integers(const RunArgs& a) noexcept {
  if constexpr (V::few > 0) {
    if (a.problem->m <= V::few) return run_few_integers<V, kind, V::few>(a);
  }
  group_columns(a.problem->scheme.weight) == 0 ? many_tokens_integers<V, kind>(a) : many_tokens_integer_groups<V, kind>(a);
}

template <class V, Weights kind>
constexpr Kernel integer_kernel(std::string_view name, host::Feature needs) {
  return {name,
          needs,
          form_of(kind).layout,
          ir::Layout::panel_scale,
          [](const Problem& p) { return integers_accept(kind, p); },
          [](const Problem& p, const host::Cpu& cpu) { return panels_cost_ns(kind, V::rates, p, cpu); },
          [](const Problem& p) { return IntegersPrepared<typename V::X>(kind, p).bytes(p.m); },
          prepare_integers<V, kind>,
          run_integers<V, kind>,
          Products::int8};
}

}  // namespace
}  // namespace qb::kernel
