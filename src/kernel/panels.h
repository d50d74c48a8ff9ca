// What the panel kernels share apart from instructions: which problems they take, what their workspace holds, what they cost.
//
// A panel kernel streams weights once, in a layout of ir/layout.h, and multiplies in bfloat16 with float32 sums. What reaches the product is exact there:
// bfloat16 weights, FP8 codes, E2M1 codes (times their E4M3 or E8M0 block scale), integers less their zero point; activations rounded to bfloat16, or their
// codes. Scales that cover a row, a tensor or a token are multiplied in at the end, in double; scales of some columns after these columns.
#pragma once

#include <algorithm>

#include "kernel/inputs.h"

namespace qb::kernel {

enum class Weights : uint8_t { bf16, fp8, fp4, int4, int8 };

struct Form {
  ir::Layout layout;
  int64_t columns;  // of a line
  int64_t unit;     // k is filled up to whole units; groups of columns under one scale are whole ones
  bool exchanged;   // a line's decode gives columns 0 and 2, 1 and 3 of every four as pairs
};
constexpr Form form_of(Weights kind) {
  switch (kind) {
    case Weights::fp8:
      return {ir::Layout::panel_fp8, 4, 4, false};
    case Weights::fp4:
      return {ir::Layout::panel_fp4, 8, 16, true};
    case Weights::int4:
      return {ir::Layout::panel_int4, 8, 16, true};
    case Weights::int8:
      return {ir::Layout::panel_int8, 4, 4, true};
    case Weights::bf16:
      break;
  }
  return {ir::Layout::panel_bf16, 2, 2, false};
}

// A scale for some rows and columns: whole panels, and whole lines of FP8 codes.
inline bool tiled(const Problem& p) {
  const ir::Block b = p.scheme.weight.block;
  return b.rows > 0 && b.rows % ir::panel_rows == 0 && b.cols > 0 && b.cols % form_of(Weights::fp8).unit == 0;
}

// Columns that share a scale of each row's own; 0: none do.
inline int64_t group_columns(const ir::QuantType& weight) {
  return weight.plain() || weight.block.rows != 1 ? 0 : weight.block.cols;
}

std::string panels_note(Weights, const Problem&);  // where codes take more bits in panels than they have, or columns are moved; empty for others
Verdict panels_accept(Weights, const Problem&);
Verdict panels_accept_weight(Weights, const Problem&);  // activations apart
// Bytes of one weight in panels, with its part of the scales.
double panel_weight_bytes(Weights, const ir::QuantType&);

// What a kernel does in one cycle. Measured with bench_linear where the file of the kernel says so.
struct Rates {
  double products;       // of its dot product
  double codes[5];       // decoded, for each kind of weights, in the form for few tokens
  double blocked_codes;  // decoded into the scratch of the form for many tokens
  int64_t few;           // up to so many tokens
};
double panels_cost_ns(Weights, const Rates&, const Problem&, const host::Cpu&);

// Bytes of room for one row of activations, where the weight's columns do not lie in their order.
inline size_t moved_row_bytes(const Problem& p) {
  return p.scheme.features.actorder ? static_cast<size_t>(p.k) * sizeof(float) : 0;
}

// The workspace: scales of the activations, then rows of codes, each of whole lines of the weight's layout and of 64 bytes, with 64 more so that rows do not
// fall on the same cache sets. Where the form says so, columns 1 and 2 of every four are exchanged: so a line's decode gives ready pairs.
template <class X>
struct Prepared {
  Prepared(Weights kind, const Problem& p) {
    const int64_t unit = form_of(kind).unit;
    columns = (p.k + unit - 1) / unit * unit;
    ld = (columns + 31) / 32 * 32 + 64 / static_cast<int64_t>(sizeof(X));
    if (is_group(*quantization_of(p))) {
      group = p.scheme.input->type.block.cols;
      groups = (p.k + group - 1) / group;
    }
    moved_bytes = moved_row_bytes(p);
  }
  Prepared(Weights kind, const Problem& p, std::byte* workspace) : Prepared(kind, p) {
    const auto address = reinterpret_cast<uintptr_t>(workspace);
    scale = reinterpret_cast<float*>(workspace + (64 - address % 64) % 64);
    group_scale = scale + p.m;
    x = reinterpret_cast<X*>(scale + (p.m * (1 + groups) + 15) / 16 * 16);
    moved = reinterpret_cast<float*>(x + p.m * ld);
  }
  size_t bytes(int64_t m) const {
    return 64 + static_cast<size_t>((m * (1 + groups) + 15) / 16 * 16) * sizeof(float) + static_cast<size_t>(m) * static_cast<size_t>(ld) * sizeof(X) +
           moved_bytes;
  }

  int64_t columns = 0, ld = 0;    // columns: k in whole lines; ld: elements from one row to the next
  int64_t groups = 0, group = 0;  // of activations with scales of some columns: how many, of how many columns
  float* scale = nullptr;         // of each token
  float* group_scale = nullptr;   // of each token and group
  X* x = nullptr;
  float* moved = nullptr;  // one row of activations
  size_t moved_bytes = 0;
};

// A row of activations in the order in which the columns of the weight lie.
inline const float* moved_row(const RunArgs& a, const float* x, float* to) {
  if (a.weight->columns == nullptr) return x;
  for (int64_t j = 0; j < a.problem->k; ++j) to[j] = x[a.weight->columns[j]];
  return to;
}

template <class X>
size_t panels_workspace(Weights kind, const Problem& p) {
  return Prepared<X>(kind, p).bytes(p.m);
}

}  // namespace qb::kernel
