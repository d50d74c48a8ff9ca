// One checkpoint in the intermediate representation: modules, what they mean, and where their bytes lie.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "arch/family.h"
#include "io/source.h"
#include "ir/types.h"
#include "num/elem.h"

namespace qb::ir {

enum class Role : uint8_t { code, scale, global, zero, input_scale, bias, k_scale, v_scale, plain };
std::string_view to_string(Role);

// How a stored scale enters the product. The IR always multiplies; `divide` keeps the stored bits of a reciprocal.
enum class ScaleForm : uint8_t { multiply, divide, exponent };

// Where the elements of a matrix lie: element (i,j) starts at bit offset + i*stride[0] + j*stride[1] of the tensor's bytes, little-endian within a byte.
struct View {
  std::array<int64_t, 2> dims{1, 1};    // rows, cols; scalars are 1 x 1
  std::array<int64_t, 2> stride{0, 0};  // bits
  int64_t offset = 0;                   // bits
  friend bool operator==(const View&, const View&) = default;
};
View row_major(int64_t rows, int64_t cols, int bits);

struct Stored {
  Role role = Role::plain;
  std::string tensor;  // its name in the source
  FileId file = 0;
  uint64_t offset = 0, bytes = 0;
  Elem container = Elem::u8;   // dtype of the tensor
  Elem elem = Elem::u8;        // what one element of the view is: e2m1 inside u8
  std::vector<int64_t> shape;  // of the tensor
  View view;
  ScaleForm form = ScaleForm::multiply;
  std::optional<double> value;  // of scalars, where the facts have it: the stored number, not yet inverted
  std::string deviation;        // how it differs from what its dialect would write for it (an entry of quantbridge.origin); empty: not at all
  std::string origin;           // its entry in the source's own quantbridge.origin: how it looked in the dialect that it came from; empty without one
};

// A weight that is to be quantized: its code part holds plain numbers, `recipe` makes the scheme's codes and scales of them.
struct Make {
  std::string recipe;             // name in the recipe manifest
  std::vector<Stored> amax_over;  // weights that share one amax; empty: the recipe needs none
};

struct Module {
  std::string path;
  arch::Kind kind = arch::Kind::other;
  int64_t n = 0, k = 0;          // logical shape of the weight; 0 where it has none
  std::optional<Scheme> scheme;  // absent: plain numbers
  std::string why;               // which rule decided the scheme, or why there is none
  std::vector<Stored> parts;
  std::optional<Make> make;
  int topology = -1;  // index into Topology::modules; -1: not a module that the family knows
  const Stored* part(Role role) const {
    for (const Stored& s : parts)
      if (s.role == role) return &s;
    return nullptr;
  }
};

struct KvCache {
  Activation scheme;
  int layers = 0;  // layers with stored scales; the others use 1
};

struct Exclusion {
  std::string rule;  // the pattern as the document has it
  std::string from;  // document and key
  int modules = 0;   // how many modules it decided
};

struct Producer {
  std::string name, version;
};

struct Checkpoint {
  arch::Topology topology;
  std::string dialect;
  std::string quant_algo;  // the producer's own word: NVFP4, float-quantized
  Producer producer;
  std::vector<Module> modules;  // every tensor of the package is a part of exactly one
  std::optional<KvCache> kv;
  std::vector<Exclusion> exclusions;
  Elem model_dtype = Elem::bf16;  // of the unquantized weights
};

}  // namespace qb::ir
