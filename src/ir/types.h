// What numbers mean: the value types of the intermediate representation.
//
//   real[i,j] = global * scale[block(i,j)] * (code[i,j] - zero[block(i,j)])
//
// A QuantType says nothing about bytes: the dtype and rank in which scales are stored belong to Stored (module.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "num/elem.h"

namespace qb::ir {

// One scale covers rows x cols weights; 0 means the whole axis. {0,0} tensor, {1,0} channel or token, {1,g} group, {r,c} tile.
struct Block {
  int32_t rows = 0, cols = 0;
  friend bool operator==(Block, Block) = default;
};

// The set of values that a scale may take. none: the numbers are plain. e4m3 implies a second, float32 scale for the whole tensor (NVFP4).
enum class ScaleValues : uint8_t { none, any, e4m3, e8m0 };
enum class Zero : uint8_t { none, code };

struct QuantType {
  Elem code = Elem::bf16;
  ScaleValues scale = ScaleValues::none;
  Block block;
  Zero zero = Zero::none;
  bool plain() const { return scale == ScaleValues::none; }
  bool two_level() const { return scale == ScaleValues::e4m3; }
  friend bool operator==(const QuantType&, const QuantType&) = default;
};

// fixed: scales are in the checkpoint. per_call: taken from the data at run time. For two-level types it says where the second level comes from; the block
// scales of activations are always taken at run time.
enum class When : uint8_t { fixed, per_call };

// How the scale of an MX block of activations, a power of two taken at run time, follows from its largest number. down: that number's exponent less the one of
// the format's largest (OCP's rule). even: one more from a fraction of 1.75 on, where the number would round to the next power as a code of the format
// (compressed-tensors' simulation; "EVEN" of torchao and Quark). up: the least power at which nothing is clamped (ModelOpt; "RCEIL").
enum class Rounding : uint8_t { down, even, up };

struct Activation {
  QuantType type;
  When when = When::per_call;
  Rounding rounding = Rounding::down;
  friend bool operator==(const Activation&, const Activation&) = default;
};

// What a linear does besides one product. output: its outputs are quantized with a scale of the checkpoint. transform: its inputs or outputs go through a
// matrix (Module::transforms).
struct Features {
  bool prescale = false, actorder = false, sparse24 = false, transform = false;
  int32_t lowrank = 0;  // rank; 0: none
  std::optional<Activation> output = {};
  friend bool operator==(const Features&, const Features&) = default;
};

// What a linear means. Equality is the registry key: no method names past the dialect.
struct Scheme {
  QuantType weight;
  std::optional<Activation> input;  // absent: weight-only
  Features features;
  friend bool operator==(const Scheme&, const Scheme&) = default;
};

// The grammar of schemes in words (docs/schemes.md): <weight>[:<activation>][+feature...]. Printing is canonical; parse(print(x)) == x for every valid x.
std::string to_string(const Scheme&);
std::string to_string(const QuantType&);  // as a weight
std::string to_string(const Activation&);
// Errors name the word, what is wrong and near names; a bare family word that leaves the choice open (fp8, int4) lists the choices.
Result<Scheme> parse_scheme(std::string_view text);
Result<Activation> parse_activation(std::string_view text);  // also the part behind "kv:"

// Stored bits for one weight, scales and all, for a matrix n x k: what inspect reports as bits_per_weight is bytes based; this is the nominal figure.
double nominal_bits(const QuantType&, int64_t n, int64_t k);

}  // namespace qb::ir
