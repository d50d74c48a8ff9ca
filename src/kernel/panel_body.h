// The loops of the panel kernels, written once for all instruction sets.
//
// The including file defines QB_K (the target attribute) and QB_KI (the same, inlined always) and a type V with the instructions:
//   X                       how activations lie in the workspace: uint16_t (bfloat16) or float
//   Acc, Operand            16 sums, one for each row; a pair of columns for 16 rows
//   zero load store splat add mul_add
//   bf16(line)              the operand of a panel_bf16 line, and store_bf16(line, operand) back
//   fp8(line, o[2])         the operands of a panel_fp8 line
//   fp4(line, o[4])         the operands of a panel_fp4 line, in the order that Prepared says
//   scales(bytes)           16 E4M3 numbers; two_scales(bytes, s[2]) 32 of them, in units of scale_unit
//   times(operand, acc)     each row's pair by its scale; the product is exact in bfloat16
//   dot(acc, operand, x)    acc + pair * (x[0], x[1])
//   few, mr, nr             tokens up to which the form for few tokens runs; tokens x panels of the other's registers
// Everything has internal linkage, so that no copy for one instruction set can be linked in for another. Every loop over registers is unrolled by pragma: g++
// keeps an indexed array in memory otherwise.
#pragma once

#include <cstring>

#include "kernel/panels.h"

#define QB_UNROLL _Pragma("GCC unroll 16")

namespace qb::kernel {
namespace {

inline constexpr int64_t prefetch_bytes = 2048;  // ahead of the line that is read

// --- Activations ---------------------------------------------------------------------------------------------------------------------------------------------

template <class X>
QB_KI void quantize_row(Quantization q, const Problem& p, const float* x, float input_scale, float tensor_scale, int64_t m, const Prepared<X>& to) {
  X* out = to.x + m * to.ld;
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
        const int64_t first = g * tile, count = std::min(tile, p.k - first);
        const float s = inputs::group_scale(q, inputs::amax(x + first, count));
        to.group_scale[m * to.groups + g] = s;
        inputs::fp8_codes(x + first, count, s, out + first);
      }
      break;
    case Quantization::mxfp8:
    case Quantization::mxfp8_up:
    case Quantization::mxfp4:
    case Quantization::mxfp4_up:
      break;  // not accepted
    case Quantization::nvfp4:
      scale = input_scale;
      inputs::nvfp4_codes(x, p.k, input_scale, out);
      break;
  }
  to.scale[m] = scale;
  for (int64_t j = p.k; j < to.columns; ++j) out[j] = X{};
}

template <class V, Weights kind>
QB_K void prepare_panels(const RunArgs& a) noexcept {
  const Problem& p = *a.problem;
  const Prepared<typename V::X> to(kind, p, a.workspace);
  const Quantization q = *quantization_of(p);
  const float tensor_scale = q == Quantization::fp8_tensor ? inputs::fp8_scale(inputs::amax(a.x, p.m * p.k)) : 1.0F;
  for (int64_t m = 0; m < p.m; ++m) {
    quantize_row(q, p, a.x + m * p.k, a.weight->input_scale, tensor_scale, m, to);
    if constexpr (kind == Weights::nvfp4) {
      typename V::X* row = to.x + m * to.ld;
      for (int64_t j = 0; j < to.columns; j += 4) std::swap(row[j + 1], row[j + 2]);
    }
  }
}

// --- Lines of each layout ------------------------------------------------------------------------------------------------------------------------------------

template <class V, Weights kind>
struct Lines;

template <class V>
struct Lines<V, Weights::bf16> {
  static constexpr int operands = 1, together = 4;  // of a line; lines that are unrolled
  QB_KI static void load(const std::byte* line, typename V::Operand* o) { o[0] = V::bf16(line); }
};
template <class V>
struct Lines<V, Weights::fp8> {
  static constexpr int operands = 2, together = 4;
  QB_KI static void load(const std::byte* line, typename V::Operand* o) { V::fp8(line, o); }
};
template <class V>
struct Lines<V, Weights::nvfp4> {
  static constexpr int operands = 4, together = 2;
  QB_KI static void load(const std::byte* line, typename V::Operand* o) { V::fp4(line, o); }
};

// --- Few tokens: a panel passes the registers once -----------------------------------------------------------------------------------------------------------

// sum[m] = the dot products of `lines` lines with token m. Several chains for each token hide the latency of the products.
template <class V, Weights kind, int M>
QB_KI void stream(const std::byte* w, int64_t lines, const typename V::X* x, int64_t ld, typename V::Acc* sum) {
  using L = Lines<V, kind>;
  constexpr int chains = kind == Weights::nvfp4 ? (M <= 2 ? 2 : 1) : (M == 1 ? 4 : M <= 4 ? 2 : 1);
  typename V::Acc t[M][chains];
  QB_UNROLL for (int m = 0; m < M; ++m) {
    QB_UNROLL for (int c = 0; c < chains; ++c) t[m][c] = V::zero();
  }
  int64_t l = 0;
  for (; l + L::together <= lines; l += L::together, w += 64 * L::together, x += 2 * L::together * L::operands) {
    QB_UNROLL for (int u = 0; u < L::together; ++u) {
      __builtin_prefetch(w + 64 * u + prefetch_bytes);
      typename V::Operand o[L::operands];
      L::load(w + 64 * u, o);
      QB_UNROLL for (int i = 0; i < L::operands; ++i) {
        QB_UNROLL for (int m = 0; m < M; ++m) {
          constexpr int step = L::operands;
          t[m][(u * step + i) % chains] = V::dot(t[m][(u * step + i) % chains], o[i], x + m * ld + 2 * (u * step + i));
        }
      }
    }
  }
  for (; l < lines; ++l, w += 64, x += 2 * L::operands) {
    typename V::Operand o[L::operands];
    L::load(w, o);
    QB_UNROLL for (int i = 0; i < L::operands; ++i) {
      QB_UNROLL for (int m = 0; m < M; ++m) t[m][i % chains] = V::dot(t[m][i % chains], o[i], x + m * ld + 2 * i);
    }
  }
  QB_UNROLL for (int m = 0; m < M; ++m) {
    sum[m] = t[m][0];
    QB_UNROLL for (int c = 1; c < chains; ++c) sum[m] = V::add(sum[m], t[m][c]);
  }
}

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
  QB_KI void finish(const float* sums, float token, float* y) const {
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

template <class V, Weights kind, int M>
QB_K void few_tokens(const RunArgs& a) noexcept {
  using Acc = typename V::Acc;
  const Problem& p = *a.problem;
  const Prepared<typename V::X> in(kind, p, a.workspace);
  constexpr ir::Layout layout = kind == Weights::bf16 ? ir::Layout::panel_bf16 : kind == Weights::fp8 ? ir::Layout::panel_fp8 : ir::Layout::panel_fp4;
  const int64_t panel_bytes = ir::panel_bytes(layout, p.k, 0), lines = panel_bytes / 64, groups = in.columns / 16;
  const bool tiles = kind == Weights::fp8 && tiled(p);
  for (int64_t first = a.n_begin; first < a.n_end; first += ir::panel_rows) {
    const int64_t panel = first / ir::panel_rows, count = std::min(ir::panel_rows, a.n_end - first);
    const std::byte* w = a.weight->codes + panel * panel_bytes;
    Acc sum[M];
    if constexpr (kind == Weights::nvfp4) {
      const std::byte* s = a.weight->scales + panel * groups * ir::panel_rows;
      QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::zero();
      for (int64_t g = 0; g < groups; g += 2, w += 256, s += 2 * ir::panel_rows) {
        __builtin_prefetch(s + 512);
        std::byte last[2 * ir::panel_rows] = {};
        if (g + 1 == groups) std::memcpy(last, s, ir::panel_rows);
        Acc scale[2];
        V::two_scales(g + 1 == groups ? last : s, scale);
        QB_UNROLL for (int64_t i = 0; i < 2; ++i) {
          if (g + i == groups) break;
          Acc t[M];
          stream<V, kind, M>(w + 128 * i, 2, in.x + (g + i) * 16, in.ld, t);
          QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(t[m], scale[i], sum[m]);
        }
      }
      QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::mul_add(sum[m], V::splat(V::scale_unit), V::zero());
    } else if (tiles) {
      const auto* grid = reinterpret_cast<const float*>(a.weight->scales) + first / tile * ((p.k + tile - 1) / tile);
      QB_UNROLL for (int m = 0; m < M; ++m) sum[m] = V::zero();
      for (int64_t g = 0, l = 0; l < lines; ++g, l += tile / 4) {
        Acc t[M];
        stream<V, kind, M>(w + l * 64, std::min(tile / 4, lines - l), in.x + g * tile, in.ld, t);
        QB_UNROLL for (int m = 0; m < M; ++m) {
          sum[m] = V::mul_add(t[m], V::splat(in.groups != 0 ? grid[g] * in.group_scale[m * in.groups + g] : grid[g]), sum[m]);
        }
      }
    } else {
      stream<V, kind, M>(w, lines, in.x, in.ld, sum);
    }
    const RowScales rows(a, first, count);
    QB_UNROLL for (int m = 0; m < M; ++m) {
      alignas(64) float sums[ir::panel_rows];
      V::store(sums, sum[m]);
      rows.finish(sums, in.scale[m], a.y + m * p.n + first);
    }
  }
}

// --- Many tokens: a piece of some panels is decoded once and multiplied with all of them ---------------------------------------------------------------------

inline constexpr int64_t piece = 512;           // columns of a decoded piece: whole tiles
inline constexpr int64_t tokens_at_once = 192;  // that share it

template <class V, int R, int N, bool scaled>
QB_KI void multiply(const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, float* c, int64_t ldc, const float* tile_scale,
                    const float* token_scale, int64_t token_stride) {
  typename V::Acc t[R][N];
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = scaled ? V::zero() : V::load(c + m * ldc + n * ir::panel_rows);
  }
  for (int64_t l = 0; l < lines; ++l, w += 64, x += 2) {
    typename V::Operand o[N];
    QB_UNROLL for (int n = 0; n < N; ++n) o[n] = V::bf16(w + n * stride);
    QB_UNROLL for (int m = 0; m < R; ++m) {
      QB_UNROLL for (int n = 0; n < N; ++n) t[m][n] = V::dot(t[m][n], o[n], x + m * ld);
    }
  }
  QB_UNROLL for (int m = 0; m < R; ++m) {
    QB_UNROLL for (int n = 0; n < N; ++n) {
      float* to = c + m * ldc + n * ir::panel_rows;
      if constexpr (scaled) {
        const float s = token_scale == nullptr ? tile_scale[n] : tile_scale[n] * token_scale[m * token_stride];
        t[m][n] = V::mul_add(t[m][n], V::splat(s), V::load(to));
      }
      V::store(to, t[m][n]);
    }
  }
}

// `rows` of at most R tokens: the right instance.
template <class V, int R, int N, bool scaled>
QB_K void multiply_rows(int64_t rows, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, float* c, int64_t ldc,
                        const float* tile_scale, const float* token_scale, int64_t token_stride) {
  if (rows == R) return multiply<V, R, N, scaled>(w, stride, x, ld, lines, c, ldc, tile_scale, token_scale, token_stride);
  if constexpr (R > 1) multiply_rows<V, R - 1, N, scaled>(rows, w, stride, x, ld, lines, c, ldc, tile_scale, token_scale, token_stride);
}

// Columns [k0, k0 + count) of a panel as panel_bf16 lines.
template <class V, Weights kind>
QB_KI void decode(const std::byte* codes, const std::byte* scales, int64_t k0, int64_t count, std::byte* out) {
  if constexpr (kind == Weights::fp8) {
    codes += k0 * ir::panel_rows;
    for (int64_t l = 0; l < count / 4; ++l, codes += 64, out += 128) {
      typename V::Operand o[2];
      V::fp8(codes, o);
      QB_UNROLL for (int i = 0; i < 2; ++i) V::store_bf16(out + 64 * i, o[i]);
    }
  } else {
    codes += k0 * ir::panel_rows / 2;
    scales += k0;
    for (int64_t l = 0; l < count / 8; ++l, codes += 64, out += 256) {
      typename V::Operand o[4];
      V::fp4(codes, o);
      const typename V::Acc s = V::scales(scales + l / 2 * ir::panel_rows);
      QB_UNROLL for (int i = 0; i < 4; ++i) V::store_bf16(out + 64 * i, V::times(o[i], s));
    }
  }
}

// Adds `lines` lines of `panels` panels, all under one tile scale each, to the sums of `tokens` tokens.
template <class V, bool scaled>
QB_KI void multiply_panels(int64_t panels, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, float* c, int64_t tokens,
                           const float* tile_scale, const float* token_scale, int64_t token_stride) {
  constexpr int64_t ldc = V::nr * ir::panel_rows;
  for (int64_t m = 0; m < tokens; m += V::mr) {
    const int64_t rows = std::min<int64_t>(V::mr, tokens - m);
    const float* token = token_scale == nullptr ? nullptr : token_scale + m * token_stride;
    if (panels == V::nr) {
      multiply_rows<V, V::mr, V::nr, scaled>(rows, w, stride, x + m * ld, ld, lines, c + m * ldc, ldc, tile_scale, token, token_stride);
    } else {
      for (int64_t n = 0; n < panels; ++n) {
        multiply_rows<V, V::mr, 1, scaled>(rows, w + n * stride, stride, x + m * ld, ld, lines, c + m * ldc + n * ir::panel_rows, ldc, tile_scale + n, token,
                                           token_stride);
      }
    }
  }
}

template <class V, Weights kind>
QB_K void many_tokens(const RunArgs& a) noexcept {
  const Problem& p = *a.problem;
  const Prepared<typename V::X> in(kind, p, a.workspace);
  constexpr ir::Layout layout = kind == Weights::bf16 ? ir::Layout::panel_bf16 : kind == Weights::fp8 ? ir::Layout::panel_fp8 : ir::Layout::panel_fp4;
  constexpr int64_t ldc = V::nr * ir::panel_rows;
  const int64_t panel_bytes = ir::panel_bytes(layout, p.k, 0), scale_bytes = in.columns, tile_columns = (p.k + tile - 1) / tile;
  const bool tiles = kind == Weights::fp8 && tiled(p);
  alignas(64) std::byte scratch[kind == Weights::bf16 ? 64 : V::nr * piece * 32];
  alignas(64) float c[tokens_at_once * ldc];
  const int64_t end = (a.n_end + ir::panel_rows - 1) / ir::panel_rows;
  for (int64_t panel = a.n_begin / ir::panel_rows; panel < end; panel += V::nr) {
    const int64_t panels = std::min<int64_t>(V::nr, end - panel);
    for (int64_t m0 = 0; m0 < p.m; m0 += tokens_at_once) {
      const int64_t tokens = std::min(tokens_at_once, p.m - m0);
      std::memset(c, 0, static_cast<size_t>(tokens * ldc) * sizeof(float));
      for (int64_t k0 = 0; k0 < in.columns; k0 += piece) {
        const int64_t columns = std::min(piece, in.columns - k0);
        const std::byte* w = a.weight->codes + panel * panel_bytes + k0 * 32;
        int64_t stride = panel_bytes;
        if constexpr (kind != Weights::bf16) {
          for (int64_t n = 0; n < panels; ++n) {
            decode<V, kind>(a.weight->codes + (panel + n) * panel_bytes, a.weight->scales + (kind == Weights::nvfp4 ? (panel + n) * scale_bytes : 0), k0,
                            columns, scratch + n * piece * 32);
          }
          w = scratch;
          stride = piece * 32;
        }
        const typename V::X* x = in.x + m0 * in.ld + k0;
        if (!tiles) {
          const float unused[V::nr] = {};
          multiply_panels<V, false>(panels, w, stride, x, in.ld, columns / 2, c, tokens, unused, nullptr, 0);
          continue;
        }
        for (int64_t at = 0; at < columns; at += tile) {
          float tile_scale[V::nr] = {};
          const int64_t g = (k0 + at) / tile;
          for (int64_t n = 0; n < panels; ++n) {
            tile_scale[n] = reinterpret_cast<const float*>(a.weight->scales)[(panel + n) * ir::panel_rows / tile * tile_columns + g];
          }
          multiply_panels<V, true>(panels, w + at * 32, stride, x + at, in.ld, std::min(tile, columns - at) / 2, c, tokens, tile_scale,
                                   in.groups == 0 ? nullptr : in.group_scale + m0 * in.groups + g, in.groups);
        }
      }
      for (int64_t n = 0; n < panels; ++n) {
        const int64_t first = (panel + n) * ir::panel_rows, count = std::min(ir::panel_rows, a.n_end - first);
        const RowScales rows(a, first, count);
        for (int64_t m = 0; m < tokens; ++m) rows.finish(c + m * ldc + n * ir::panel_rows, in.scale[m0 + m], a.y + (m0 + m) * p.n + first);
      }
    }
  }
}

template <class V, Weights kind, int M>
void run_few(const RunArgs& a) noexcept {
  if (a.problem->m == M) return few_tokens<V, kind, M>(a);
  if constexpr (M > 1) run_few<V, kind, M - 1>(a);
}

template <class V, Weights kind>
void run_panels(const RunArgs& a) noexcept {
  a.problem->m <= V::few ? run_few<V, kind, V::few>(a) : many_tokens<V, kind>(a);
}

template <Weights kind>
Verdict accepts(const Problem& p) {
  return panels_accept(kind, p);
}
template <class V, Weights kind>
double cost_ns(const Problem& p, const host::Cpu& cpu) {
  return panels_cost_ns(kind, V::rates, p, cpu);
}
template <class V, Weights kind>
constexpr Kernel panel_kernel(std::string_view name, host::Feature needs) {
  constexpr ir::Layout codes = kind == Weights::bf16 ? ir::Layout::panel_bf16 : kind == Weights::fp8 ? ir::Layout::panel_fp8 : ir::Layout::panel_fp4;
  constexpr ir::Layout scales = kind == Weights::nvfp4 ? ir::Layout::panel_scale : ir::Layout::rows;
  return {name,
          needs,
          codes,
          scales,
          accepts<kind>,
          cost_ns<V, kind>,
          [](const Problem& p) { return panels_workspace<typename V::X>(kind, p); },
          prepare_panels<V, kind>,
          run_panels<V, kind>};
}

}  // namespace
}  // namespace qb::kernel
