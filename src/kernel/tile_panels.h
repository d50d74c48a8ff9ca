// panel_body.h by tiles: pairs of bfloat16 numbers, of weights that are such or were made such for some tokens.
#pragma once

#include "kernel/panel_body.h"
#include "kernel/tile_body.h"

namespace qb::kernel {
namespace {

template <ByTiles V, Scaling scaling>
struct PanelProducts<V, Weights::bf16, scaling> {
  using X = typename V::X;

  QB_KI static void add(int64_t panels, const std::byte* w, int64_t stride, const X* x, int64_t ld, int64_t lines, float* c, int64_t tokens, const Scales& s,
                        bool first) {
    if constexpr (scaling == Scaling::none) {
      multiply_all<V>(panels, w, stride, x, ld, lines, c, tokens, first);
    } else {
      if (first) std::memset(c, 0, static_cast<size_t>(tokens * tile_ldc) * sizeof *c);
      BlockShapes<typename V::Tiles> shapes;
      alignas(64) float t[tokens_in_block * block_ld];
      for_blocks(panels, tokens, [&](int64_t n, int64_t m, int64_t some_panels, int64_t some_tokens) QB_K {
        multiply_block<V, false>(shapes, some_panels, w + n * stride, stride, x + m * ld, ld, lines, t, block_ld, some_tokens);
        add_block(some_panels, t, c + m * tile_ldc + n * ir::panel_rows, some_tokens,
                  {s.of + n * s.stride, s.stride, s.token == nullptr ? nullptr : s.token + m * s.token_stride, s.token_stride});
      });
    }
  }

 private:
  static constexpr int64_t block_ld = panels_in_block * ir::panel_rows;
  static constexpr int together = 8;  // tokens whose sums are in registers
  template <int R>
  QB_KI static void add_tokens(const float* t, float* c, const Scales& s) {
    typename V::Acc sums[R][1];
    QB_UNROLL for (int m = 0; m < R; ++m) sums[m][0] = V::load(t + m * block_ld);
    put_sums<V, R, 1, scaling>(sums, c, tile_ldc, s);
  }
  QB_KI static void add_block(int64_t panels, const float* t, float* c, int64_t tokens, const Scales& all) {
    for (int64_t n = 0; n < panels; ++n, t += ir::panel_rows, c += ir::panel_rows) {
      Scales s{all.of + n * all.stride, all.stride, all.token, all.token_stride};
      const auto next = [&s](int64_t m) { s.token = s.token == nullptr ? nullptr : s.token + m * s.token_stride; };
      int64_t m = 0;
      for (; m + together <= tokens; m += together, next(together)) add_tokens<together>(t + m * block_ld, c + m * tile_ldc, s);
      for (; m < tokens; ++m, next(1)) add_tokens<1>(t + m * block_ld, c + m * tile_ldc, s);
    }
  }
};

// The instructions of Base, with its products by tiles T.
template <class Base, class T>
struct TiledPanels : Base {
  using Tiles = T;
  static constexpr int few = 0, nr = panels_at_once;
  static constexpr int64_t piece = 1024;
  // As for integers (tile_integers.h): 16 cycles in registers, 1.25 T products a second. Codes as Zen 4 decodes them (avx512_bf16.h).
  static constexpr TileRates rates{Products::bf16, 64, 48, 10};
};

template <class V, Weights kind>
constexpr Kernel tile_panel_kernel(std::string_view name, host::Feature needs) {
  return tile_kernel<V, run_panels<V, kind>>(panel_kernel<V, kind>(name, needs));
}

}  // namespace
}  // namespace qb::kernel
