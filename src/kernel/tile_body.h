// Products of many tokens by tiles (host/tiles.h), for the loops of panel_body.h and integer_body.h: lines of panels are rows of a tile as they lie, and rows
// of prepared activations rows of another.
//
// A type V whose products are made by tiles has what the loops for many tokens need of it (decoding lines, sums in registers, which scales are multiplied into)
// and
//   Tiles           the tile registers: shape, release, zero, load, store, dot_int8, dot_bf16 (host/tiles.h)
//   few             0: other kernels read the same panels for few tokens
//   nr, group_nr    panels_at_once
// A block of 32 tokens by two panels is four tiles of sums, two of activations and two of weights: all eight. Tiles have the shapes of what there is, so that
// nothing is read that is not there: fewer tokens, panels, or lines of a group.
//
// A block loads as many tiles as it multiplies, and a tile of the second-level cache takes as long as a product. So some lines of 64 tokens, which fit the
// first level, meet all panels at once before others come: with two panels, each of which meets all tokens, activations that are larger than the second level
// would come from the third once for every two.
#pragma once

#include "host/tiles.h"
#include "kernel/panel_rows.h"

namespace qb::kernel {
namespace {

template <class V>
concept ByTiles = requires {
  typename V::Tiles;
};

inline constexpr int64_t tile_rows = 16, panels_in_block = 2, tokens_in_block = 2 * tile_rows;
inline constexpr int64_t panels_at_once = 8, tokens_together = 2 * tokens_in_block, lines_together = 144;  // 36 KiB of activations
inline constexpr int64_t tile_ldc = panels_at_once * ir::panel_rows;                                       // of the sums of panels_at_once
constexpr int sums_tile(int r, int n) {
  return 2 * r + n;
}
constexpr int tokens_tile(int r) {
  return 4 + r;
}
constexpr int weights_tile(int n) {
  return 6 + n;
}

// The shapes for so many tokens and panels, and lines in one step. Loads them where they are others than before.
template <class Tiles>
class BlockShapes {
 public:
  QB_KI void use(int64_t tokens, int64_t panels, int64_t lines) {
    if (tokens == tokens_ && panels == panels_ && lines == lines_) return;
    tokens_ = tokens, panels_ = panels, lines_ = lines;
    host::TileShapes s;
    const auto set = [&s](int tile, int64_t rows, int64_t words) {
      s.rows[tile] = static_cast<uint8_t>(rows);
      s.row_bytes[tile] = static_cast<uint16_t>(4 * words);
    };
    for (int r = 0; r < 2; ++r) {
      const int64_t rows = std::min(tile_rows, tokens - r * tile_rows);
      if (rows <= 0) continue;
      set(tokens_tile(r), rows, lines);
      for (int n = 0; n < panels; ++n) set(sums_tile(r, n), rows, ir::panel_rows);
    }
    for (int n = 0; n < panels; ++n) set(weights_tile(n), lines, ir::panel_rows);
    Tiles::shape(s);
  }

 private:
  int64_t tokens_ = 0, panels_ = 0, lines_ = 0;
};

template <class Tiles, class X, int r, int n>
QB_KI void dot_tiles() {
  if constexpr (sizeof(X) == 1) {
    Tiles::template dot_int8<sums_tile(r, n), tokens_tile(r), weights_tile(n)>();
  } else {
    Tiles::template dot_bf16<sums_tile(r, n), tokens_tile(r), weights_tile(n)>();
  }
}

// Adds `steps` times `lines` lines of N panels by R tiles of tokens to the tiles of sums.
template <class V, int R, int N>
QB_KI void add_steps(const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t steps, int64_t lines) {
  using T = typename V::Tiles;
  using X = typename V::X;
  constexpr auto size = static_cast<int64_t>(sizeof(X));
  for (; steps > 0; --steps, w += 64 * lines, x += 4 * lines / size) {
    T::template load<weights_tile(0)>(w, 64);
    T::template load<tokens_tile(0)>(x, ld * size);
    dot_tiles<T, X, 0, 0>();
    if constexpr (N == 2) {
      T::template load<weights_tile(1)>(w + stride, 64);
      dot_tiles<T, X, 0, 1>();
    }
    if constexpr (R == 2) {
      T::template load<tokens_tile(1)>(x + tile_rows * ld, ld * size);
      dot_tiles<T, X, 1, 0>();
      if constexpr (N == 2) dot_tiles<T, X, 1, 1>();
    }
  }
}

template <class T, int R, int N, class Sum>
QB_KI void load_sums(const Sum* c, int64_t ldc) {
  T::template load<sums_tile(0, 0)>(c, ldc * 4);
  if constexpr (N == 2) T::template load<sums_tile(0, 1)>(c + ir::panel_rows, ldc * 4);
  if constexpr (R == 2) T::template load<sums_tile(1, 0)>(c + tile_rows * ldc, ldc * 4);
  if constexpr (R == 2 && N == 2) T::template load<sums_tile(1, 1)>(c + tile_rows * ldc + ir::panel_rows, ldc * 4);
}
template <class T, int R, int N, class Sum>
QB_KI void store_sums(Sum* c, int64_t ldc) {
  T::template store<sums_tile(0, 0)>(c, ldc * 4);
  if constexpr (N == 2) T::template store<sums_tile(0, 1)>(c + ir::panel_rows, ldc * 4);
  if constexpr (R == 2) T::template store<sums_tile(1, 0)>(c + tile_rows * ldc, ldc * 4);
  if constexpr (R == 2 && N == 2) T::template store<sums_tile(1, 1)>(c + tile_rows * ldc + ir::panel_rows, ldc * 4);
}
template <class T, int R, int N>
QB_KI void zero_sums() {
  T::template zero<sums_tile(0, 0)>();
  if constexpr (N == 2) T::template zero<sums_tile(0, 1)>();
  if constexpr (R == 2) T::template zero<sums_tile(1, 0)>();
  if constexpr (R == 2 && N == 2) T::template zero<sums_tile(1, 1)>();
}

// The sums c of a block: `lines` lines of N panels by its tokens, beside what they were (`add`) or alone. Lines are shared out evenly over the least number of
// steps; where the last has fewer, tiles take another shape for it, by way of memory.
template <class V, int R, int N, bool add, class Sum>
QB_K void multiply_block(BlockShapes<typename V::Tiles>& shapes, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, Sum* c,
                         int64_t ldc, int64_t tokens) {
  using T = typename V::Tiles;
  static_assert(sizeof(Sum) == 4);
  const int64_t steps = (lines + tile_rows - 1) / tile_rows, each = (lines + steps - 1) / steps, last = lines - (steps - 1) * each;
  const int64_t even = last == each ? steps : steps - 1;
  shapes.use(tokens, N, each);
  if constexpr (add) {
    load_sums<T, R, N>(c, ldc);
  } else {
    zero_sums<T, R, N>();
  }
  add_steps<V, R, N>(w, stride, x, ld, even, each);
  store_sums<T, R, N>(c, ldc);
  if (even == steps) return;
  shapes.use(tokens, N, last);
  load_sums<T, R, N>(c, ldc);
  add_steps<V, R, N>(w + 64 * even * each, stride, x + 4 * even * each / static_cast<int64_t>(sizeof(typename V::X)), ld, 1, last);
  store_sums<T, R, N>(c, ldc);
}
template <class V, int N, bool add, class Sum>
QB_KI void multiply_block(BlockShapes<typename V::Tiles>& shapes, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, Sum* c,
                          int64_t ldc, int64_t tokens) {
  if (tokens > tile_rows) return multiply_block<V, 2, N, add>(shapes, w, stride, x, ld, lines, c, ldc, tokens);
  multiply_block<V, 1, N, add>(shapes, w, stride, x, ld, lines, c, ldc, tokens);
}
// `panels`: 1 or 2.
template <class V, bool add, class Sum>
QB_KI void multiply_block(BlockShapes<typename V::Tiles>& shapes, int64_t panels, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld,
                          int64_t lines, Sum* c, int64_t ldc, int64_t tokens) {
  if (panels == panels_in_block) return multiply_block<V, 2, add>(shapes, w, stride, x, ld, lines, c, ldc, tokens);
  multiply_block<V, 1, add>(shapes, w, stride, x, ld, lines, c, ldc, tokens);
}

// The blocks of some panels and tokens: block(n, m), the first panel and token, panels and tokens in it.
template <class F>
QB_KI void for_blocks(int64_t panels, int64_t tokens, const F& block) {
  for (int64_t together = 0; together < tokens; together += tokens_together) {
    const int64_t end = std::min(tokens, together + tokens_together);
    for (int64_t n = 0; n < panels; n += panels_in_block)
      for (int64_t m = together; m < end; m += tokens_in_block) block(n, m, std::min(panels_in_block, panels - n), std::min(tokens_in_block, end - m));
  }
}

// Adds `lines` lines of all panels by all tokens to the sums c [tokens, tile_ldc], or to zeros where they are the first.
template <class V, class Sum>
QB_KI void multiply_all(int64_t panels, const std::byte* w, int64_t stride, const typename V::X* x, int64_t ld, int64_t lines, Sum* c, int64_t tokens,
                        bool first) {
  BlockShapes<typename V::Tiles> shapes;
  const int64_t parts = (lines + lines_together - 1) / lines_together, each = ((lines + parts - 1) / parts + tile_rows - 1) / tile_rows * tile_rows;
  for (int64_t l = 0; l < lines; l += each) {
    const int64_t here = std::min(each, lines - l);
    const std::byte* const part = w + 64 * l;
    const typename V::X* const in_part = x + 4 * l / static_cast<int64_t>(sizeof(typename V::X));
    for_blocks(panels, tokens, [&](int64_t n, int64_t m, int64_t some_panels, int64_t some_tokens) QB_K {
      Sum* const sums = c + m * tile_ldc + n * ir::panel_rows;
      if (first && l == 0)
        multiply_block<V, false>(shapes, some_panels, part + n * stride, stride, in_part + m * ld, ld, here, sums, tile_ldc, some_tokens);
      else
        multiply_block<V, true>(shapes, some_panels, part + n * stride, stride, in_part + m * ld, ld, here, sums, tile_ldc, some_tokens);
    });
  }
}

// A kernel whose `run` leaves the thread's tiles as it found them.
template <class V, void (*inner)(const RunArgs&) noexcept>
void run_and_release(const RunArgs& a) noexcept {
  inner(a);
  V::Tiles::release();
}
template <class V, void (*inner)(const RunArgs&) noexcept>
constexpr Kernel tile_kernel(Kernel k) {
  k.run = run_and_release<V, inner>;
  return k;
}

}  // namespace
}  // namespace qb::kernel
