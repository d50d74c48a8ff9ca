// What the panel kernels share apart from instructions: which problems they take, what their workspace holds, what they cost.
//
// A panel kernel streams weights once, in a layout of ir/layout.h, and multiplies in bfloat16 or in float32, with float32 sums. What reaches the product is
// exact there: plain weights, FP8 codes, E2M1 codes (times their E4M3 or E8M0 block scale), integers less their zero point; activations rounded to bfloat16, or
// their codes. Scales that cover a row, a tensor or a token are multiplied in at the end, in double; scales of some columns after these columns. Kernels that
// multiply in float32 also take every other kind of activations, as the numbers that the reference multiplies (kernel/quantized.h).
#pragma once

#include <algorithm>

#include "kernel/inputs.h"

namespace qb::kernel {

enum class Weights : uint8_t { bf16, fp8, fp4, int4, int8, f16, f32 };
constexpr bool is_plain(Weights kind) {
  return kind == Weights::bf16 || kind == Weights::f16 || kind == Weights::f32;
}

struct Form {
  ir::Layout layout;
  int64_t columns;    // of a line
  int64_t line = 64;  // bytes
  bool exchanged;     // a line's decode gives columns 0 and 2, 1 and 3 of every four as pairs
};
constexpr Form form_of(Weights kind) {
  switch (kind) {
    case Weights::fp8:
      return {ir::Layout::panel_fp8, 4, 64, false};
    case Weights::fp4:
      return {ir::Layout::panel_fp4, 8, 64, true};
    case Weights::int4:
      return {ir::Layout::panel_int4, 8, 64, true};
    case Weights::int8:
      return {ir::Layout::panel_int8, 4, 64, true};
    case Weights::f16:
      return {ir::Layout::panel_plain, 2, 64, false};
    case Weights::f32:
      return {ir::Layout::panel_plain, 2, 128, false};
    case Weights::bf16:
      break;
  }
  return {ir::Layout::panel_bf16, 2, 64, false};
}
constexpr int bits_of(Weights kind) {  // of the codes as they lie in panels
  return kind == Weights::f32 ? 32 : kind == Weights::f16 || kind == Weights::bf16 ? 16 : kind == Weights::fp4 || kind == Weights::int4 ? 4 : 8;
}
inline int64_t panel_bytes(Weights kind, const Problem& p) {
  const ir::Layout layout = form_of(kind).layout;
  return ir::panel_bytes(layout, panel_columns(layout, p.scheme.weight, p.k), bits_of(kind));
}

// Whether codes of activations and their scales reach the product apart from each other: then codes are bfloat16 numbers.
bool codes_apart(Weights, const Problem&);

// What is to be known of a weight in panels: codes or groups that take more room than they have, scales that are repeated, columns that are moved.
std::string panels_note(Weights, const Problem&);
Verdict panels_accept(Weights, Products, const Problem&);
Verdict panels_accept_weight(Weights, const Problem&);  // activations apart
// Bytes of one weight in panels, with its part of the scales.
double panel_weight_bytes(Weights, const Problem&);

// What a kernel does in one cycle. Measured with bench_linear where the file of the kernel says so.
struct Rates {
  double products;       // of its dot product
  double codes[7];       // decoded, for each kind of weights, in the form for few tokens
  double blocked_codes;  // decoded into the scratch of the form for many tokens
  int64_t few;           // up to so many tokens
};
double panels_cost_ns(Weights, const Rates&, const Problem&, const host::Cpu&);

// What a kernel takes whose products are made by tiles (tile_body.h), in cycles.
struct TileRates {
  Products products;     // int8: a step has 64 columns; bf16: 32
  double step;           // one of 16 tokens by a panel
  double group;          // to multiply the scales of a group into the sums of 16 tokens by a panel
  double blocked_codes;  // decoded in one cycle, as in Rates
};
double panels_cost_ns(Weights, const TileRates&, const Problem&, const host::Cpu&);

// Room for a row of activations, where the weight's columns do not lie in their order.
inline int64_t moved_columns(Weights kind, const Problem& p) {
  return p.scheme.features.actorder || panel_columns(form_of(kind).layout, p.scheme.weight, p.k) != p.k ? p.k : 0;
}

// The workspace: scales of the activations, then rows of codes, each of whole lines of the weight's layout and of 64 bytes, with 64 more so that rows do not
// fall on the same cache sets. Where the form says so, columns 1 and 2 of every four are exchanged: so a line's decode gives ready pairs.
template <class X>
struct Prepared {
  Prepared(Weights kind, const Problem& p) {
    const ir::Layout layout = form_of(kind).layout;
    const int64_t unit = ir::unit_of(layout);
    places = panel_columns(layout, p.scheme.weight, p.k);
    columns = (places + unit - 1) / unit * unit;
    ld = (columns + 31) / 32 * 32 + 64 / static_cast<int64_t>(sizeof(X));
    apart = codes_apart(kind, p);
    if (apart && is_group(*quantization_of(p))) {
      group = p.scheme.input->type.block.cols;
      groups = (p.k + group - 1) / group;
    }
    moved_bytes = static_cast<size_t>(moved_columns(kind, p)) * sizeof(X);
  }
  Prepared(Weights kind, const Problem& p, std::byte* workspace) : Prepared(kind, p) {
    const auto address = reinterpret_cast<uintptr_t>(workspace);
    scale = reinterpret_cast<float*>(workspace + (64 - address % 64) % 64);
    group_scale = scale + p.m;
    x = reinterpret_cast<X*>(scale + (p.m * (1 + groups) + 15) / 16 * 16);
    moved = x + p.m * ld;
  }
  size_t bytes(int64_t m) const {
    return 64 + static_cast<size_t>((m * (1 + groups) + 15) / 16 * 16) * sizeof(float) + static_cast<size_t>(m) * static_cast<size_t>(ld) * sizeof(X) +
           static_cast<size_t>(m) * moved_bytes;
  }

  bool apart = true;              // codes_apart
  int64_t places = 0;             // of the weight's columns
  int64_t columns = 0, ld = 0;    // columns: places in whole lines; ld: elements from one row to the next
  int64_t groups = 0, group = 0;  // of activations with scales of some columns: how many, of how many columns
  float* scale = nullptr;         // of each token
  float* group_scale = nullptr;   // of each token and group
  X* x = nullptr;
  X* moved = nullptr;      // rows of activations in their own order
  size_t moved_bytes = 0;  // of one
};

// A row of activations where the columns of the weight lie; 0 where none does, and past the last.
template <class X>
QB_INLINE void move_row(const Weight& w, const X* from, int64_t places, int64_t end, X* to) {
  if (w.columns != nullptr)
    for (int64_t j = 0; j < places; ++j) to[j] = w.columns[j] < 0 ? X{} : from[w.columns[j]];
  for (int64_t j = places; j < end; ++j) to[j] = X{};
}

template <class X>
size_t panels_workspace(Weights kind, const Problem& p) {
  return Prepared<X>(kind, p).bytes(p.m);
}

}  // namespace qb::kernel
