// integer_body.h by tiles: what is multiplied are the same bytes, so corrections and scales are the same.
#pragma once

#include "kernel/integer_body.h"
#include "kernel/tile_body.h"

namespace qb::kernel {
namespace {

template <ByTiles V>
struct PieceProducts<V> {
  using X = typename V::X;

  QB_KI static void rows(int64_t panels, const std::byte* w, const Piece& piece, const X* x, int64_t ld, int32_t* c, int64_t, int64_t tokens, bool first) {
    multiply_all<V>(panels, w, piece.stride, x, ld, piece.lines, c, tokens, first);
  }

  QB_KI static void groups(int64_t panels, const std::byte* w, const Piece& piece, const X* x, int64_t ld, float* c, int64_t ldc, int64_t tokens,
                           const GroupsOfPiece<V>& all) {
    BlockShapes<typename V::Tiles> shapes;
    alignas(64) int32_t t[tokens_in_block * block_ld];
    for_blocks(panels, tokens, [&](int64_t n, int64_t m, int64_t some_panels, int64_t some_tokens) QB_K {
      GroupsOfPiece<V> of = all;
      of.panel += n, of.token += m, of.scales += n * of.scale_stride, of.u += n * of.u_stride;
      for (int64_t g = piece.first_group, l = 0; g < piece.end_group; ++g, l += piece.group_lines) {
        const int64_t lines = std::min(piece.group_lines, piece.lines - l);
        multiply_block<V, false>(shapes, some_panels, w + n * piece.stride + 64 * l, piece.stride, x + m * ld + 4 * l, ld, lines, t, block_ld, some_tokens);
        add_block(some_panels, piece, g, t, c + m * ldc + n * ir::panel_rows, ldc, some_tokens, of);
      }
    });
  }

 private:
  static constexpr int64_t block_ld = panels_in_block * ir::panel_rows;
  static constexpr int together = 8;  // tokens whose sums are in registers
  template <int R>
  QB_KI static void add_tokens(const Piece& piece, int64_t g, const int32_t* t, float* c, int64_t ldc, const GroupsOfPiece<V>& of) {
    typename V::Int products[R][1];
    typename V::Float sum[R][1];
    QB_UNROLL for (int m = 0; m < R; ++m) {
      products[m][0] = V::add(V::load(t + m * block_ld), V::splat(of.in.start[of.in.at(g, of.token + m)]));
      sum[m][0] = V::load(c + m * ldc);
    }
    add_group<V, R, 1>(piece, g, of, products, sum);
    QB_UNROLL for (int m = 0; m < R; ++m) V::store(c + m * ldc, sum[m][0]);
  }
  QB_KI static void add_block(int64_t panels, const Piece& piece, int64_t g, const int32_t* t, float* c, int64_t ldc, int64_t tokens, GroupsOfPiece<V> of) {
    const int64_t token = of.token;
    for (int64_t n = 0; n < panels; ++n, ++of.panel, of.scales += of.scale_stride, of.u += of.u_stride, t += ir::panel_rows, c += ir::panel_rows) {
      int64_t m = 0;
      for (; m + together <= tokens; m += together) {
        of.token = token + m;
        add_tokens<together>(piece, g, t + m * block_ld, c + m * ldc, ldc, of);
      }
      for (; m < tokens; ++m) {
        of.token = token + m;
        add_tokens<1>(piece, g, t + m * block_ld, c + m * ldc, ldc, of);
      }
    }
  }
};

// The instructions of Base, with its products by tiles T.
template <class Base, class T>
struct TiledIntegers : Base {
  using Tiles = T;
  static constexpr int few = 0, nr = panels_at_once, group_nr = panels_at_once;
  // Emerald Rapids at 2.6 GHz, two processors of a virtual machine: a step takes 16 cycles in registers (2.5 T products a second, as published for Sapphire
  // Rapids), and with what it loads from the second-level cache 40 in quiet minutes, 130 in others, when the kernels with VNNI are two thirds as fast too. Sums
  // of a group are stored by tiles, loaded, and scaled: three cycles for each token are assumed. Codes as Zen 4 decodes them (avx512_vnni.h).
  static constexpr TileRates rates{Products::int8, 64, 48, 30};
};

template <class V, Weights kind>
constexpr Kernel tile_integer_kernel(std::string_view name, host::Feature needs) {
  return tile_kernel<V, run_integers<V, kind>>(integer_kernel<V, kind>(name, needs));
}

}  // namespace
}  // namespace qb::kernel
