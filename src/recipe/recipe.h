// How quantized numbers are made from higher precision, with the numerics of a named producer. One file each, found through the manifest.
//
// A recipe works on a block of rows and needs nothing else but the amax that the runner took before: so offline, online and requantizing paths make the same
// bytes for any block height and any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "ir/types.h"
#include "num/elem.h"
#include "num/isa.h"

namespace qb::recipe {

enum class Numerics : uint8_t { modelopt, llm_compressor };
std::string_view to_string(Numerics);

struct Args {
  const void* weights;  // [rows, k], `source` elements, contiguous
  Elem source;          // bf16, f16 or f32
  int64_t rows, k;      // rows of this block; starts at a multiple of row_multiple
  int64_t n;            // rows of the whole matrix
  float amax;           // over the whole tensor or its fused group; 0: the recipe takes each block's own
  ir::QuantType type;
  std::byte* codes;   // [rows, k] of type.code, packed low bits first, every row from a whole byte on; integers lie one to a byte
  std::byte* scales;  // [ceil(rows/block.rows), ceil(k/block.cols)] of scale_elem; written for tensor-wise types too (each block the same value)
  std::byte* global;  // one float32, for two-level types; may be null
  Isa isa = Isa::generic;
  std::byte* zeros = nullptr;  // one i8 for each scale, for types with zero points
};

// Whether modules that read the same input share one amax. single_block: only where each of them is one block, whose scale the producer then holds as a
// scalar and brings together as it does for whole tensors.
enum class Share : uint8_t { own, fused, single_block };

struct Recipe {
  std::string_view name;    // fp8_tensor.modelopt
  std::string_view source;  // where the numerics come from
  Numerics numerics;
  bool (*makes)(const ir::QuantType&) noexcept;  // which types it can make
  bool needs_amax;                               // over the tensor, before the first row
  Share share;
  // dtype in which the producer stores this scale, given the dtype of the source weights
  Elem (*scale_elem)(Elem source) noexcept;
  // form of the global scale: the producer's stored number multiplies or divides
  bool global_divides;
  int64_t row_multiple;  // see row_multiple() below: blocks of another height need more
  void (*run)(const Args&) noexcept;
};

// Registers a recipe, at file scope: QB_RECIPE(fp8_tensor_modelopt) = {...};
#define QB_RECIPE(stem)              \
  extern const Recipe recipe_##stem; \
  constinit const Recipe recipe_##stem

std::span<const Recipe* const> recipes();  // the generated manifest
const Recipe* find_recipe(std::string_view name);
// The first one that makes the type. Where a producer has two ways to make one type, the other is found by name only.
const Recipe* find_recipe(const ir::QuantType&, Numerics);

// Rows at which a block of rows may start, for this type: the recipe's own multiple and whole blocks.
int64_t row_multiple(const Recipe&, const ir::QuantType&);

// max |x| over `count` elements, exact; NaN if any is NaN.
float absmax(const void* data, Elem elem, int64_t count, Isa isa) noexcept;

}  // namespace qb::recipe
