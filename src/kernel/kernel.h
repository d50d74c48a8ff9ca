// Linear kernels: what one accepts, what it costs, what it runs. One file for each family and ISA, found through the manifest (QB_KERNEL).
//
// y[m,n] = (x[m,k] quantized as the problem says) w[n,k]^T. All numbers of a call stand in RunArgs; a kernel allocates nothing, knows no model and cannot fail:
// `accepts` proved legality before a weight was packed. Bound, per element: |y - y64| <= (k+8) u sum|x||w| with u = 2^-24, y64 in double on the quantized
// inputs. Kernels that multiply with vdpbf16ps or tdpbf16ps take subnormal bfloat16 inputs and subnormal float32 sums for zero, before scales are applied:
// 2^-125 for each product more. Their form for many tokens has E8M0 scales in the weight already: weights below 2^-126 count as zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "host/cpu.h"
#include "ir/layout.h"
#include "ir/types.h"

namespace qb::kernel {

// What activations are when they reach the dot product.
enum class Inputs : uint8_t { as_scheme, bf16, f32 };  // as_scheme: quantized as the scheme's input says (bf16 where it says nothing)

struct Problem {
  int64_t m = 1, n = 0, k = 0;
  ir::Scheme scheme;  // plain weights: weight.plain(), code bf16, f16 or f32
  Inputs inputs = Inputs::as_scheme;
  friend bool operator==(const Problem&, const Problem&) = default;
};
std::string to_string(const Problem&);

// Bits of a code in layout `rows`: integers lie one to a byte.
inline int row_bits(const ir::QuantType& weight) {
  return is_integer_code(weight.code) ? 8 : bits(weight.code);
}

// What a scale grid in layout `rows` holds: the stored E4M3 bytes of two-level types (a float32 for each 16 weights would be half of the codes again), float32
// multipliers otherwise.
inline Elem grid_elem(const ir::QuantType& weight) {
  return weight.two_level() ? Elem::e4m3 : Elem::f32;
}

// FP8 tiles of whole panels and whole lines, whose scales lie as `rows` beside the panels. In all other tiles each row gets scales of its own.
inline bool whole_tiles(const ir::QuantType& weight) {
  const ir::Block b = weight.block;
  return weight.code == Elem::e4m3 && b.rows > 0 && b.rows % ir::panel_rows == 0 && b.cols > 0 && b.cols % ir::unit_of(ir::Layout::panel_fp8) == 0;
}

// MX blocks that run down the outputs (ModelOpt's stacked experts): whole panels have a scale for each column, which lies as `rows` beside them.
inline bool scaled_by_column(const ir::QuantType& weight) {
  const ir::Block b = weight.block;
  return (weight.code == Elem::e4m3 || weight.code == Elem::e2m1) && weight.scale == ir::ScaleValues::e8m0 && b.cols == 1 && b.rows > 0 &&
         b.rows % ir::panel_rows == 0;
}

// Columns that share a scale of each row's own in panels; 0: none do.
inline int64_t group_columns(const ir::QuantType& weight) {
  return weight.plain() || weight.block.rows == 0 || whole_tiles(weight) || scaled_by_column(weight) ? 0 : weight.block.cols;
}

// The same as they lie in panels of codes, and all columns there: groups begin at whole units of the layout, and are filled up where their size is none.
inline int64_t panel_group(ir::Layout codes, const ir::QuantType& weight) {
  const int64_t unit = ir::unit_of(codes);
  return (group_columns(weight) + unit - 1) / unit * unit;
}
inline int64_t panel_columns(ir::Layout codes, const ir::QuantType& weight, int64_t k) {
  const int64_t group = group_columns(weight), places = panel_group(codes, weight);
  return group == places ? k : k / group * places + k % group;
}

// What layout `panel_scale` holds: E4M3 and E8M0 scales of groups as they are stored, float32 multipliers otherwise. Grids of tensors, of
// whole tiles and of scales by column lie as `rows` beside the panels too.
inline Elem panel_scale_elem(const ir::QuantType& weight) {
  if (weight.two_level()) return Elem::e4m3;
  return weight.scale == ir::ScaleValues::e8m0 && group_columns(weight) != 0 && !is_integer_code(weight.code) ? Elem::e8m0 : Elem::f32;
}
inline bool scales_in_panels(ir::Layout scale_layout, const ir::QuantType& weight) {
  return scale_layout == ir::Layout::panel_scale && weight.block.rows != 0 && !whole_tiles(weight) && !scaled_by_column(weight);
}

struct Verdict {
  bool ok = false;
  std::string why;   // a sentence; empty when ok
  std::string note;  // what is to be known of a kernel that runs; mostly empty
};

// A weight in the layout of its kernel.
struct Weight {
  const std::byte* codes = nullptr;   // panels (or rows) of Kernel::code_layout
  const std::byte* scales = nullptr;  // rows: the block grid of grid_elem, row-major; panel_scale: of panel_scale_elem. Null for plain weights
  float global = 1;                   // second-level scale as a multiplier; 1 without one
  const float* bias = nullptr;        // [n] or null
  float input_scale = 0;              // static activation scale as a multiplier; 0 without one
  const std::byte* zeros = nullptr;   // an int8 for each scale, in the same layout, where the type has zero points
  const int32_t* order = nullptr;     // rows, [k]: the group of each column, all below the number of groups; null: groups follow each other
  const int32_t* columns = nullptr;   // panels, [panel_columns]: the column that lies at each place, -1 where none does; null: as they are
  int input_zero = 0;                 // beside a static activation scale
};

struct RunArgs {
  const Problem* problem;
  const Weight* weight;
  const float* x;          // [m, k], row-major
  float* y;                // [m, n], row-major
  int64_t n_begin, n_end;  // rows of the weight that this call computes: whole panels, except at the end
  std::byte* workspace;    // of workspace_bytes, prepared by `prepare`; shared by all threads of one call
};

enum class Products : uint8_t { f32, bf16, int8 };  // what a kernel multiplies in

struct Kernel {
  std::string_view name;  // linear_fp8c_bf16_avx512
  host::Feature needs;    // all of these processor features
  ir::Layout code_layout;
  ir::Layout scale_layout;                              // rows: the block grid of grid_elem; panel_scale: as scales_in_panels says
  Verdict (*accepts)(const Problem&);                   // apart from the host
  double (*cost_ns)(const Problem&, const host::Cpu&);  // comparable between kernels, for one thread; constants carry their measurement
  size_t (*workspace_bytes)(const Problem&);
  // Before `run`: quantizes the activations of tokens [m_begin, m_end) into the workspace. Threads may share the tokens of a call.
  void (*prepare)(const RunArgs&, int64_t m_begin, int64_t m_end) noexcept;
  void (*run)(const RunArgs&) noexcept;
  Products products = Products::f32;  // the machine's peak that its speed is a fraction of
};

std::span<const Kernel* const> kernels();  // the generated manifest

}  // namespace qb::kernel

// Registers a kernel: QB_KERNEL(linear_ref) = {...}; the build's manifest finds the line.
#define QB_KERNEL(stem)              \
  extern const Kernel kernel_##stem; \
  const Kernel kernel_##stem
