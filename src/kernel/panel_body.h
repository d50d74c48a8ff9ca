// The loops of the panel kernels, written once for all instruction sets.
//
// The including file defines QB_K (the target attribute) and QB_KI (the same, inlined always) and a type V with the instructions:
//   X                       how activations lie in the workspace: uint16_t (bfloat16) or float
//   Acc, Operand            16 sums, one for each row; a pair of columns for 16 rows
//   zero load store splat add mul_add
//   bf16(line)              the operand of a panel_bf16 line, and store_bf16(line, operand) back
//   f16(line), f32(line)    the operand of a panel_plain line: where V multiplies in float32
//   fp8(line, o[2])         the operands of a panel_fp8 line
//   fp4(line, o[4])         the operands of a panel_fp4 line, in the order that Prepared says
//   int4(line[, zero], o)   of a panel_int4 line (4) and of a panel_int8 line (2), less the zero points
//   int8(line[, zero], o)
//   zeros4(bytes)           16 zero points (int8) as int4 and int8 want them
//   zeros8(bytes)
//   scales(bytes)           16 E4M3 numbers; two_scales(bytes, s[2]) 32 of them, in units of scale_unit
//   powers(bytes)           16 E8M0 numbers
//   times(operand, acc)     each row's pair by its scale; the product is exact in bfloat16
//   dot(acc, operand, x)    acc + pair * (x[0], x[1])
//   few, mr, nr             tokens up to which the form for few tokens runs (0: there is none); tokens x panels of the other's registers
//   piece                   columns that are decoded at once, if not 512
// Everything has internal linkage, so that no copy for one instruction set can be linked in for another. Every loop over registers is unrolled by pragma: g++
// keeps an indexed array in memory otherwise.
#pragma once

#include <cstring>
#include <type_traits>

#include "kernel/panel_rows.h"
#include "kernel/quantized.h"

namespace qb::kernel {
namespace {

// --- Activations ---------------------------------------------------------------------------------------------------------------------------------------------

template <class X>
constexpr Products products_of = std::is_same_v<X, float> ? Products::f32 : Products::bf16;

// The codes of a row in the order of its columns, and their scales apart from them.
template <class X>
QB_KI void quantize_row(Quantization q, const Problem& p, const float* x, float input_scale, float tensor_scale, int64_t m, const Prepared<X>& to, X* out) {
  float scale = 1;
  switch (q) {
    case Quantization::f32:
    case Quantization::bf16:
      for (int64_t j = 0; j < p.k; ++j) inputs::keep(inputs::to_bf16(x[j]), out + j);
      break;
    case Quantization::fp8_fixed:
      inputs::fp8_codes(x, p.k, scale = input_scale, out);
      break;
    case Quantization::fp8_tensor:
      inputs::fp8_codes(x, p.k, scale = tensor_scale, out);
      break;
    case Quantization::fp8_token:
      inputs::fp8_codes(x, p.k, scale = inputs::fp8_scale(inputs::amax(x, p.k)), out);
      break;
    case Quantization::fp8_group:
    case Quantization::fp8_group_e8m0:
      for (int64_t g = 0; g < to.groups; ++g) {
        const int64_t first = g * to.group, count = std::min(to.group, p.k - first);
        const float s = inputs::group_scale(q, inputs::amax(x + first, count));
        to.group_scale[m * to.groups + g] = s;
        inputs::fp8_codes(x + first, count, s, out + first);
      }
      break;
    case Quantization::mxfp8:
    case Quantization::mxfp8_even:
    case Quantization::mxfp8_up:
    case Quantization::mxfp4:
    case Quantization::mxfp4_even:
    case Quantization::mxfp4_up:
      inputs::mx_numbers(q, x, p.k, out);
      break;
    case Quantization::nvfp4:
      scale = input_scale;
      inputs::nvfp4_codes(x, p.k, input_scale, out);
      break;
  }
  to.scale[m] = scale;
}

template <class V, Weights kind>
QB_K void prepare_panels(const RunArgs& a, int64_t m_begin, int64_t m_end) noexcept {
  const Problem& p = *a.problem;
  using X = typename V::X;
  const Prepared<X> to(kind, p, a.workspace);
  const Quantization q = to.apart ? *quantization_of(p) : Quantization::f32;
  const float tensor_scale = q == Quantization::fp8_tensor ? inputs::fp8_scale(inputs::amax(a.x, p.m * p.k)) : 1.0F;
  std::optional<QuantizedInputs> numbers;
  if (!to.apart) numbers.emplace(a);
  for (int64_t m = m_begin; m < m_end; ++m) {
    X* const row = to.x + m * to.ld;
    X* const in_order = a.weight->columns == nullptr ? row : to.moved + m * p.k;
    if constexpr (products_of<X> == Products::f32) {
      if (!to.apart) numbers->row(m, in_order), to.scale[m] = 1;
    }
    if (to.apart) quantize_row(q, p, a.x + m * p.k, a.weight->input_scale, tensor_scale, m, to, in_order);
    move_row(*a.weight, in_order, to.places, to.columns, row);
    if constexpr (form_of(kind).exchanged) {
      for (int64_t j = 0; j < to.columns; j += 4) std::swap(row[j + 1], row[j + 2]);
    }
  }
}

// --- Lines of each layout ------------------------------------------------------------------------------------------------------------------------------------

// The zero points of a panel's rows in one group, where there are any.
template <class V, Weights kind, bool zeros>
struct Zeros {
  QB_KI Zeros() = default;
  QB_KI Zeros(const Groups&, int64_t, int64_t) {}
};
template <class V>
struct Zeros<V, Weights::int4, true> {
  QB_KI Zeros(const Groups& groups, int64_t panel, int64_t g) : of(V::zeros4(groups.zeros_of(panel, g))) {}
  typename V::Zero of;
};
template <class V>
struct Zeros<V, Weights::int8, true> {
  QB_KI Zeros(const Groups& groups, int64_t panel, int64_t g) : of(V::zeros8(groups.zeros_of(panel, g))) {}
  typename V::Zero of;
};

template <class V, Weights kind>
struct Lines;

template <class V>
struct Lines<V, Weights::bf16> {
  static constexpr int operands = 1, together = 4;  // of a line; lines that are unrolled
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::bf16, false>&, typename V::Operand* o) { o[0] = V::bf16(line); }
};
template <class V>
struct Lines<V, Weights::f16> {
  static constexpr int operands = 1, together = 4;
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::f16, false>&, typename V::Operand* o) { o[0] = V::f16(line); }
};
template <class V>
struct Lines<V, Weights::f32> {
  static constexpr int operands = 1, together = 4;
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::f32, false>&, typename V::Operand* o) { o[0] = V::f32(line); }
};
template <class V>
struct Lines<V, Weights::fp8> {
  static constexpr int operands = 2, together = 4;
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::fp8, false>&, typename V::Operand* o) { V::fp8(line, o); }
};
template <class V>
struct Lines<V, Weights::fp4> {
  static constexpr int operands = 4, together = 2;
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::fp4, false>&, typename V::Operand* o) { V::fp4(line, o); }
};
template <class V>
struct Lines<V, Weights::int4> {
  static constexpr int operands = 4, together = 2;
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::int4, false>&, typename V::Operand* o) { V::int4(line, o); }
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::int4, true>& z, typename V::Operand* o) { V::int4(line, z.of, o); }
};
template <class V>
struct Lines<V, Weights::int8> {
  static constexpr int operands = 2, together = 4;
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::int8, false>&, typename V::Operand* o) { V::int8(line, o); }
  QB_KI static void load(const std::byte* line, const Zeros<V, Weights::int8, true>& z, typename V::Operand* o) { V::int8(line, z.of, o); }
};

// --- Few tokens: a panel passes the registers once -----------------------------------------------------------------------------------------------------------

// sum[m] = the dot products of `lines` lines with token m. Several chains for each token hide the latency of the products.
template <class V, Weights kind, int M, int chains, bool zeros>
QB_KI void stream(const std::byte* w, int64_t lines, const typename V::X* x, int64_t ld, const Zeros<V, kind, zeros>& zero, typename V::Acc* sum) {
  using L = Lines<V, kind>;
  constexpr int64_t bytes = form_of(kind).line;
  typename V::Acc t[M][chains];
  QB_UNROLL for (int m = 0; m < M; ++m) {
    QB_UNROLL for (int c = 0; c < chains; ++c) t[m][c] = V::zero();
  }
  int64_t l = 0;
  for (; l + L::together <= lines; l += L::together, w += bytes * L::together, x += 2 * L::together * L::operands) {
    QB_UNROLL for (int u = 0; u < L::together; ++u) {
      QB_UNROLL for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(w + bytes * u + b + prefetch_bytes);
      typename V::Operand o[L::operands];
      L::load(w + bytes * u, zero, o);
      QB_UNROLL for (int i = 0; i < L::operands; ++i) {
        QB_UNROLL for (int m = 0; m < M; ++m) {
          constexpr int step = L::operands;
          t[m][(u * step + i) % chains] = V::dot(t[m][(u * step + i) % chains], o[i], x + m * ld + 2 * (u * step + i));
        }
      }
    }
  }
  for (; l < lines; ++l, w += bytes, x += 2 * L::operands) {
    typename V::Operand o[L::operands];
    L::load(w, zero, o);
    QB_UNROLL for (int i = 0; i < L::operands; ++i) {
      QB_UNROLL for (int m = 0; m < M; ++m) t[m][i % chains] = V::dot(t[m][i % chains], o[i], x + m * ld + 2 * i);
    }
  }
  QB_UNROLL for (int m = 0; m < M; ++m) {
    sum[m] = t[m][0];
    QB_UNROLL for (int c = 1; c < chains; ++c) sum[m] = V::add(sum[m], t[m][c]);
  }
}

// Groups of 16 columns, as NVFP4 has them: the scales of two groups are decoded at once.
template <class V, Weights kind, int M>
QB_KI void short_groups(const std::byte* w, const Groups& of, int64_t panel, const Prepared<typename V::X>& in, typename V::Acc* sum) {
  const Zeros<V, kind, false> zero(of, panel, 0);
  const std::byte* s = of.scales_of(panel, 0);
  const int64_t groups = in.columns / 16;
  for (int64_t g = 0; g < groups; g += 2, w += 256, s += 2 * ir::panel_rows) {
    __builtin_prefetch(s + 512);
    std::byte last[2 * ir::panel_rows] = {};
    if (g + 1 == groups) std::memcpy(last, s, ir::panel_rows);
    typename V::Acc scale[2];
    V::two_scales(g + 1 == groups ? last : s, scale);
    QB_UNROLL for (int64_t i = 0; i < 2; ++i) {
      if (g + i == groups) break;
      typename V::Acc t[M];
      stream<V, kind, M, M <= 2 ? 2 : 1, false>(w + 128 * i, 2, in.x + (g + i) * 16, in.ld, zero, t);
      QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(t[m], scale[i], sum[m]);
    }
  }
  QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(sum[m], V::splat(V::scale_unit), V::zero());
}

template <class V, Weights kind, int M, bool zeros>
QB_K void few_tokens(const RunArgs& a) noexcept {
  using Acc = typename V::Acc;
  constexpr Form form = form_of(kind);
  const Problem& p = *a.problem;
  const Prepared<typename V::X> in(kind, p, a.workspace);
  const Groups groups(kind, a);
  const bool tiles = kind == Weights::fp8 && whole_tiles(p.scheme.weight);
  const int64_t each = panel_bytes(kind, p), lines = each / form.line;
  const ir::Block block = p.scheme.weight.block;
  const int64_t columns = tiles ? block.cols : groups.columns, together = columns / form.columns;
  for (int64_t first = a.n_begin; first < a.n_end; first += ir::panel_rows) {
    const int64_t panel = first / ir::panel_rows;
    const std::byte* w = a.weight->codes + panel * each;
    Acc sum[M];
    QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::zero();
    if constexpr (is_plain(kind)) {
      stream<V, kind, M, M == 1 ? 4 : M <= 4 ? 2 : 1, zeros>(w, lines, in.x, in.ld, Zeros<V, kind, zeros>(groups, panel, 0), sum);
    } else if (kind == Weights::fp4 && groups.elem == Elem::e4m3 && columns == 16) {
      if constexpr (kind == Weights::fp4) short_groups<V, kind, M>(w, groups, panel, in, sum);
    } else {
      for (int64_t g = 0, l = 0; l < lines; ++g, l += together) {
        Acc t[M];
        stream<V, kind, M,
               M == 1   ? 4
               : M <= 4 ? 2
                        : 1,
               zeros>(w + l * 64, std::min(together, lines - l), in.x + g * columns, in.ld, Zeros<V, kind, zeros>(groups, panel, g), t);
        if (kind == Weights::fp8 && tiles) {
          const float scale = reinterpret_cast<const float*>(a.weight->scales)[first / block.rows * ((p.k + columns - 1) / columns) + g];
          QB_UNROLL for (int m = 0; m < M; ++m) {
            sum[m] = V::mul_add(t[m], V::splat(in.groups != 0 ? scale * in.group_scale[m * in.groups + g] : scale), sum[m]);
          }
        } else if (groups.apart) {
          const Acc scale = group_scales<V>(groups, panel, g);
          if (kind == Weights::fp8 && in.groups != 0) {
            QB_UNROLL for (int m = 0; m < M; ++m) {
              sum[m] = V::mul_add(t[m], V::mul_add(scale, V::splat(in.group_scale[m * in.groups + g]), V::zero()), sum[m]);
            }
          } else {
            QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(t[m], scale, sum[m]);
          }
        } else {
          QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = t[m];
        }
      }
    }
    const RowScales<1> rows(a, panel, 1);
    QB_UNROLL for (int m = 0; m < M; ++m) {
      alignas(64) float sums[ir::panel_rows];
      V::store(sums, sum[m]);
      rows.finish(sums, static_cast<double>(in.scale[m]), a.y + m * p.n);
    }
  }
}

// --- Many tokens: a piece of some panels is decoded once and multiplied with all of them ---------------------------------------------------------------------

inline constexpr int64_t tokens_at_once = 512;  // that share a decoded piece
// Columns of it.
template <class V>
constexpr int64_t piece_of() {
  if constexpr (requires { V::piece; }) return V::piece;
  return 512;
}

// What the sums of some columns are multiplied with before they are added up: nothing, one scale of each panel, or one of each row.
enum class Scaling : uint8_t { none, panel, row };
struct Scales {
  const float* of = nullptr;
  int64_t stride = 0;  // from one panel to the next
  const float* token = nullptr;
  int64_t token_stride = 0;
};

// The sums t of R tokens x N panels to where they are added up: instead of what is there, which they began with, or times their scales beside it.
template <class V, int R, int N, Scaling scaling>
QB_KI void put_sums(typename V::Acc (&t)[R][N], float* c, int64_t ldc, const Scales& s) {
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) {
      float* to = c + m * ldc + n * ir::panel_rows;
      if constexpr (scaling == Scaling::panel) {
        const float scale = s.token == nullptr ? s.of[n * s.stride] : s.of[n * s.stride] * s.token[m * s.token_stride];
        t[m][n] = V::mul_add(t[m][n], V::splat(scale), V::load(to));
      } else if constexpr (scaling == Scaling::row) {
        const typename V::Acc row = V::load(s.of + n * s.stride);
        const typename V::Acc scale = s.token == nullptr ? row : V::mul_add(row, V::splat(s.token[m * s.token_stride]), V::zero());
        t[m][n] = V::mul_add(t[m][n], scale, V::load(to));
      }
      V::store(to, t[m][n]);
    }
  }
}

template <class V, Weights kind, int R, int N, Scaling scaling>
QB_KI void multiply(const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, float* c, int64_t ldc, const Scales& s) {
  typename V::Acc t[R][N];
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = scaling != Scaling::none ? V::zero() : V::load(c + m * ldc + n * ir::panel_rows);
  }
  const Zeros<V, kind, false> none;
  for (int64_t l = 0; l < lines; ++l, w += form_of(kind).line, x += 2) {
    typename V::Operand o[N];
    QB_UNROLL for (int n = 0; n < N; ++n) Lines<V, kind>::load(w + n * stride, none, o + n);
    QB_UNROLL for (int m = 0; m < R; ++m) {
      QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = V::dot(t[m][n], o[n], x + m * ld);
    }
  }
  put_sums<V, R, N, scaling>(t, c, ldc, s);
}

// `rows` of at most R tokens: the right instance.
template <class V, Weights kind, int R, int N, Scaling scaling>
QB_K void multiply_rows(int64_t rows, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, float* c, int64_t ldc,
                        const Scales& s) {
  if (rows == R) return multiply<V, kind, R, N, scaling>(w, stride, x, ld, lines, c, ldc, s);
  if constexpr (R > 1) multiply_rows<V, kind, R - 1, N, scaling>(rows, w, stride, x, ld, lines, c, ldc, s);
}

// Columns [k0, k0 + count) of a panel as panel_bf16 lines. Scales that are exact there are multiplied in.
template <class V, Weights kind, bool zeros>
QB_KI void decode(const std::byte* codes, const Groups& groups, int64_t panel, int64_t k0, int64_t count, std::byte* out) {
  using L = Lines<V, kind>;
  constexpr Form form = form_of(kind);
  codes += k0 / form.columns * 64;
  for (int64_t at = k0; at < k0 + count;) {
    const int64_t g = at / groups.columns, end = std::min((g + 1) * groups.columns, k0 + count);
    const Zeros<V, kind, zeros> zero(groups, panel, g);
    if (groups.exact) {
      const typename V::Acc s = group_scales<V>(groups, panel, g);
      for (; at < end; at += form.columns, codes += 64) {
        typename V::Operand o[L::operands];
        L::load(codes, zero, o);
        QB_UNROLL for (int i = 0; i < L::operands; ++i, out += 64) V::store_bf16(out, V::times(o[i], s));
      }
    } else {
      for (; at < end; at += form.columns, codes += 64) {
        typename V::Operand o[L::operands];
        L::load(codes, zero, o);
        QB_UNROLL for (int i = 0; i < L::operands; ++i, out += 64) V::store_bf16(out, o[i]);
      }
    }
  }
}

// Multiplies columns [k0, k0 + count) of decoded panel_bf16 lines by a power of two each, which is exact.
template <Weights kind>
QB_KI void scale_columns(const float* scales, int64_t k, int64_t k0, int64_t count, std::byte* lines) {
  const auto scale = [&](int64_t place) {
    const int64_t within = place % 4, column = k0 + (form_of(kind).exchanged && (within == 1 || within == 2) ? place - within + 3 - within : place);
    return column < k ? scales[column] : 1.0F;
  };
  for (int64_t j = 0; j < count; j += 2, lines += 64) {
    const float even = scale(j), odd = scale(j + 1);
    uint32_t pairs[ir::panel_rows];
    std::memcpy(pairs, lines, sizeof pairs);
    for (uint32_t& pair : pairs) {
      const float low = std::bit_cast<float>(pair << 16) * even, high = std::bit_cast<float>(pair & 0xFFFF0000U) * odd;
      pair = (std::bit_cast<uint32_t>(low) >> 16) | (std::bit_cast<uint32_t>(high) & 0xFFFF0000U);
    }
    std::memcpy(lines, pairs, sizeof pairs);
  }
}

// Adds `lines` lines of `panels` panels of plain weights, all under one scale each, to the sums of `tokens` tokens, or to zeros where they are the first: by
// registers; tile_panels.h has another way.
template <class V, Weights kind, Scaling scaling>
struct PanelProducts {
  QB_KI static void add(int64_t panels, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, float* c, int64_t tokens,
                        Scales s, bool first) {
    constexpr int64_t ldc = V::nr * ir::panel_rows;
    if (first) std::memset(c, 0, static_cast<size_t>(tokens * ldc) * sizeof *c);
    for (int64_t m = 0; m < tokens; m += V::mr) {
      const int64_t rows = std::min<int64_t>(V::mr, tokens - m);
      if (panels == V::nr) {
        multiply_rows<V, kind, V::mr, V::nr, scaling>(rows, w, stride, x + m * ld, ld, lines, c + m * ldc, ldc, s);
      } else {
        for (int64_t n = 0; n < panels; ++n) {
          const Scales one{s.of + n * s.stride, s.stride, s.token, s.token_stride};
          multiply_rows<V, kind, V::mr, 1, scaling>(rows, w + n * stride, stride, x + m * ld, ld, lines, c + m * ldc + n * ir::panel_rows, ldc, one);
        }
      }
      if (s.token != nullptr) s.token += V::mr * s.token_stride;
    }
  }
};

template <class V, Weights kind, bool zeros>
QB_K void many_tokens(const RunArgs& a) noexcept {
  constexpr Form form = form_of(kind);
  const Problem& p = *a.problem;
  const Prepared<typename V::X> in(kind, p, a.workspace);
  const Groups groups(kind, a);
  constexpr int64_t ldc = V::nr * ir::panel_rows;
  constexpr Weights plain = is_plain(kind) ? kind : Weights::bf16;  // as they are multiplied
  const int64_t each = panel_bytes(kind, p);
  const bool tiles = kind == Weights::fp8 && whole_tiles(p.scheme.weight);
  const ir::Block block = p.scheme.weight.block;
  const bool by_column = scaled_by_column(p.scheme.weight);
  const int64_t across = tiles ? (p.k + block.cols - 1) / block.cols : 0;  // tiles
  constexpr int64_t piece = piece_of<V>();
  alignas(64) std::byte scratch[is_plain(kind) ? 64 : V::nr * piece * 32];
  alignas(64) float c[tokens_at_once * ldc];
  const int64_t end = (a.n_end + ir::panel_rows - 1) / ir::panel_rows;
  for (int64_t panel = a.n_begin / ir::panel_rows; panel < end; panel += V::nr) {
    const int64_t panels = std::min<int64_t>(V::nr, end - panel);
    for (int64_t m0 = 0; m0 < p.m; m0 += tokens_at_once) {
      const int64_t tokens = std::min(tokens_at_once, p.m - m0);
      for (int64_t k0 = 0; k0 < in.columns; k0 += piece) {
        const int64_t columns = std::min(piece, in.columns - k0);
        const std::byte* w = a.weight->codes + panel * each + k0 / form.columns * form.line;
        int64_t stride = each;
        if constexpr (!is_plain(kind)) {
          for (int64_t n = 0; n < panels; ++n) {
            decode<V, kind, zeros>(a.weight->codes + (panel + n) * each, groups, panel + n, k0, columns, scratch + n * piece * 32);
            if (by_column) {
              const int64_t row = (panel + n) * ir::panel_rows / block.rows;
              scale_columns<kind>(reinterpret_cast<const float*>(a.weight->scales) + row * p.k, p.k, k0, columns, scratch + n * piece * 32);
            }
          }
          w = scratch;
          stride = piece * 32;
        }
        const typename V::X* x = in.x + m0 * in.ld + k0;
        if (tiles) {
          for (int64_t at = 0; at < columns;) {
            float scale[V::nr] = {};
            const int64_t g = (k0 + at) / block.cols, here = std::min((g + 1) * block.cols - k0, columns) - at;
            for (int64_t n = 0; n < panels; ++n)
              scale[n] = reinterpret_cast<const float*>(a.weight->scales)[(panel + n) * ir::panel_rows / block.rows * across + g];
            PanelProducts<V, plain, Scaling::panel>::add(panels, w + at * 32, stride, x + at, in.ld, here / 2, c, tokens,
                                                         {scale, 1, in.groups == 0 ? nullptr : in.group_scale + m0 * in.groups + g, in.groups}, k0 + at == 0);
            at += here;
          }
        } else if (!is_plain(kind) && groups.apart && !groups.exact) {
          for (int64_t at = 0; at < columns;) {
            const int64_t g = (k0 + at) / groups.columns, here = std::min((g + 1) * groups.columns - k0, columns) - at;
            PanelProducts<V, plain, Scaling::row>::add(panels, w + at * 32, stride, x + at, in.ld, here / 2, c, tokens,
                                                       {reinterpret_cast<const float*>(groups.scales_of(panel, g)), groups.count * ir::panel_rows,
                                                        in.groups == 0 ? nullptr : in.group_scale + m0 * in.groups + g, in.groups},
                                                       k0 + at == 0);
            at += here;
          }
        } else {
          PanelProducts<V, plain, Scaling::none>::add(panels, w, stride, x, in.ld, columns / 2, c, tokens, {}, k0 == 0);
        }
      }
      const RowScales<V::nr> rows(a, panel, panels);
      for (int64_t m = 0; m < tokens; ++m) rows.finish(c + m * ldc, static_cast<double>(in.scale[m0 + m]), a.y + (m0 + m) * p.n);
    }
  }
}

template <class V, Weights kind, bool zeros, int M>
void run_few(const RunArgs& a) noexcept {
  if (a.problem->m == M) return few_tokens<V, kind, M, zeros>(a);
  if constexpr (M > 1) run_few<V, kind, zeros, M - 1>(a);
}

template <class V, Weights kind, bool zeros>
void run_some(const RunArgs& a) noexcept {
  if constexpr (V::few > 0) {
    if (a.problem->m <= V::few && !scaled_by_column(a.problem->scheme.weight)) return run_few<V, kind, zeros, V::few>(a);
  }
  many_tokens<V, kind, zeros>(a);
}

template <class V, Weights kind>
void run_panels(const RunArgs& a) noexcept {
  if constexpr (kind == Weights::int4 || kind == Weights::int8) {
    if (a.weight->zeros != nullptr) return run_some<V, kind, true>(a);
  }
  run_some<V, kind, false>(a);
}

template <class V, Weights kind>
Verdict accepts(const Problem& p) {
  return panels_accept(kind, products_of<typename V::X>, p);
}
template <class V, Weights kind>
double cost_ns(const Problem& p, const host::Cpu& cpu) {
  return panels_cost_ns(kind, V::rates, p, cpu);
}
template <class V, Weights kind>
constexpr Kernel panel_kernel(std::string_view name, host::Feature needs) {
  return {name,
          needs,
          form_of(kind).layout,
          is_plain(kind) ? ir::Layout::rows : ir::Layout::panel_scale,
          accepts<V, kind>,
          cost_ns<V, kind>,
          [](const Problem& p) { return panels_workspace<typename V::X>(kind, p); },
          prepare_panels<V, kind>,
          run_panels<V, kind>,
          products_of<typename V::X>};
}

}  // namespace
}  // namespace qb::kernel
