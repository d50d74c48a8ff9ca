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

// order: for each column, the group that its scale is in. shape: the logical shape of packed codes, as numbers. prescale: what inputs are multiplied by, one
// number for each column, before anything else is done to them. lowrank_a [r,k], lowrank_b [n,r]: y += (x a^T) b^T. stage: the scale at which kernels may hold
// dequantized integers as FP8; it has no part in what the weight means. calibration: a scale that was measured for a weight which is stored as it was before;
// calibration_other: a zero point or an order of groups beside it; nothing is computed with them. output_scale, output_zero: of outputs that are quantized.
enum class Role : uint8_t {
  code,
  scale,
  global,
  zero,
  order,
  shape,
  input_scale,
  input_zero,
  output_scale,
  output_zero,
  prescale,
  lowrank_a,
  lowrank_b,
  stage,
  bias,
  k_scale,
  v_scale,
  k_bias,  // what is taken from keys before they are quantized and added afterwards, [kv_heads * head_dim]
  v_bias,
  calibration,
  calibration_other,
  plain
};
std::string_view to_string(Role);
// Whether the numbers of a part multiply something: they are positive and finite, as every producer writes them.
bool is_factor(Role);

// How a stored scale enters the product. The IR always multiplies; `divide` keeps the stored bits of a reciprocal.
enum class ScaleForm : uint8_t { multiply, divide, exponent };

// Elements of an axis that share a unit (a byte, a word) in an order of their own: number i lies bit[i % count] bits into unit i / count.
struct Lanes {
  int32_t count = 1;
  std::array<uint8_t, 16> bit{};
  friend bool operator==(const Lanes&, const Lanes&) = default;
};

// Integers that are stored as one less than they are, a 0 as the largest: each field by itself, or all fields of a 32-bit word in one subtraction, in which a 0
// borrows from the field above it. Words hold whole codes only, in order.
enum class Less : uint8_t { none, field, word };

// Where the elements of a matrix lie: element (i,j) starts at bit offset + at[0](i) + at[1](j) of the tensor's bytes, little-endian within a byte, with
// at[a](i) = i / lanes[a].count * stride[a] + lanes[a].bit[i % lanes[a].count], which is i * stride[a] without lanes.
struct View {
  std::array<int64_t, 2> dims{1, 1};    // rows, cols; scalars are 1 x 1
  std::array<int64_t, 2> stride{0, 0};  // bits
  int64_t offset = 0;                   // bits
  std::array<Lanes, 2> lanes{};         // of codes of less than a byte
  // The next two are for integer codes alone.
  // Codes packed along an axis that is not the innermost of the tensor: at[a] then counts bits in a stream of 32-bit words which lie so many bits apart, and a
  // code may go on in the next word. 0: they lie behind each other. At most one axis has it.
  std::array<int64_t, 2> words{0, 0};
  bool offset_binary = false;  // the stored number is code + 2^(bits-1)
  // Bits of a code lie apart: every 32 codes of a dense stream of words are stored as planes of 4, 2 and 1 of their bits, as the width is made of, the lowest
  // bits first. The other axis consists of whole words.
  bool planes = false;
  Less less = Less::none;
  // Rows in pieces of so many, each of which lies `next_piece` bits behind the one before: (i,j) is (i % piece, j) of piece i / piece. 0: one piece. Not
  // together with lanes, words or planes.
  int64_t piece = 0, next_piece = 0;
  // One stored number for several of the view's: number i of an axis is stored as number (i + phase) / times. Not of four-bit floats.
  struct Repeat {
    int64_t times = 1, phase = 0;
    friend bool operator==(const Repeat&, const Repeat&) = default;
  };
  std::array<Repeat, 2> repeat{};
  // Not empty: these views below each other or, with `along` 1, beside each other. This one says nothing but dims then.
  std::vector<View> parts;
  uint8_t along = 0;
  friend bool operator==(const View&, const View&) = default;
};
View row_major(int64_t rows, int64_t cols, int bits);
View transposed(View v);
// The axis of a view in planes along which they lie.
inline size_t planes_axis(const View& v) {
  return v.words[0] != 0 || (v.words[1] == 0 && v.stride[0] < v.stride[1]) ? 0 : 1;
}

// rows x cols codes of `bits` in offset binary, packed along `axis` into 32-bit words: along columns [rows, words], along rows [words, cols]. `words` tells a
// dense stream from words that hold whole codes only; nothing where it is neither.
std::optional<View> packed_words(int64_t rows, int64_t cols, int bits, int axis, int64_t words);
// rows x cols codes of four bits, two to a byte. row_pairs: rows 2i (low) and 2i+1 of one column, two's complement, [rows/2, cols]; high_first: columns 2j
// (high) and 2j+1 of one row, in offset binary, [rows, cols/2].
enum class Nibbles : uint8_t { row_pairs, high_first };
View nibbles(int64_t rows, int64_t cols, Nibbles order);
// Words of the dense stream.
inline int64_t dense_words(int64_t count, int bits) {
  return (count * bits + 31) / 32;
}

// A tensor that holds the numbers of a sparse matrix which are not left out, row by row. A bit for each element says which those are; the others are 0. The
// view has the size of the whole matrix and says nothing else.
struct Mask {
  std::string tensor;  // U8 [rows, ceil(cols / 8)], the lowest bit of a byte first; empty: nothing is left out
  FileId file = 0;
  uint64_t offset = 0, bytes = 0;
  std::vector<int64_t> starts;  // rows + 1: where the numbers of each row begin, and where the last ones end; empty: two of every four, row by row
  std::string whole;            // the name of the matrix as a tensor that holds all of it
  friend bool operator==(const Mask&, const Mask&) = default;
};

// How several stored matrices are one: below each other (along 0) or beside each other (1); in turns: one row, or column, of each after the other.
struct Join {
  uint8_t along = 0;
  bool turns = false;
  friend bool operator==(Join, Join) = default;
};

struct Stored {
  Role role = Role::plain;
  std::string tensor;  // its name in the source
  std::string as;      // the name that it is written under, where that is another one
  FileId file = 0;
  uint64_t offset = 0, bytes = 0;
  Elem container = Elem::u8;   // dtype of the tensor
  Elem elem = Elem::u8;        // what one element of the view is: e2m1 inside u8
  std::vector<int64_t> shape;  // of the tensor
  View view;
  Mask mask = {};
  ScaleForm form = ScaleForm::multiply;
  std::optional<double> value;  // of scalars, where the facts have it: the stored number, not yet inverted
  std::string deviation;        // how it differs from what its dialect would write for it (an entry of quantbridge.origin); empty: not at all
  std::string origin;           // its entry in the source's own quantbridge.origin: how it looked in the dialect that it came from; empty without one
  // What a pass made of the stored numbers of a float format (not of exponents): each is (x + plus) * times * the numbers of `by` for its row ([rows,1]) or its
  // column ([1,cols]) - plus, rounded once to its own format. `by` holds floats that lie elsewhere in the checkpoint and are not changed themselves.
  double times = 1, plus = 0;
  std::vector<Stored> by = {};
  // Not empty: it consists of these, which may lie in several tensors and be changed each by itself. Its own view says nothing but dims then, and the place is
  // that of the first.
  std::vector<Stored> joined = {};
  Join join = {};
  bool changed() const { return times != 1 || !by.empty(); }
};

// A tensor of the source seen that way.
Stored stored(const TensorInfo&, Role, Elem elem, View view);

// The name and the shape of a part as a tensor that holds every element.
std::string whole_name(const Stored&);
std::vector<int64_t> whole_shape(const Stored&);

// A linear map of a module's inputs before anything else is done to them, or of its outputs after all else: every block of a row times matrix / divisor, or
// times its transpose. The stored weight is the one that belongs to these inputs and outputs.
struct Transform {
  bool of_outputs = false, transposed = false;
  double divisor = 1;
  Stored matrix;  // [block, block] floats; modules may share one
};

// A weight that is to be quantized: its code part holds plain numbers, `recipe` makes the scheme's codes and scales of them.
struct Make {
  std::string recipe;             // name in the recipe manifest
  std::vector<Stored> amax_over;  // weights that share one amax; empty: the recipe needs none
  std::string algorithm = {};     // that decides with it, from data (calib/algorithm.h); empty: none
};

// Weights of several experts in one tensor, one behind the other (Kind::expert). The module's matrix [n, k] has them below each other, each as it is stored;
// its scheme says what the weight of one of them means as a linear, [outputs, inputs] (ir/stack.h).
struct Stack {
  int64_t experts = 0;        // 0: an ordinary matrix
  bool inputs_first = false;  // an expert's part is stored [inputs, outputs]
  bool own_scale = false;     // where the scheme has one scale for a tensor: each expert has its own; otherwise all share one
};

struct Module {
  std::string path;
  arch::Kind kind = arch::Kind::other;
  int64_t n = 0, k = 0;  // logical shape of the weight; 0 where it has none
  Stack stack = {};
  std::optional<Scheme> scheme;  // absent: plain numbers
  std::string why;               // which rule decided the scheme, or why there is none
  std::vector<Stored> parts;
  std::vector<Transform> transforms;  // at most one of the inputs and one of the outputs
  std::optional<Make> make;
  int topology = -1;  // index into Topology::modules; -1: not a module that the family knows
  const Stored* part(Role role) const {
    for (const Stored& s : parts)
      if (s.role == role) return &s;
    return nullptr;
  }
};

// Two-level schemes take k_scale / 6 for the second level: scales are those of an FP8 cache, amax / 448.
struct KvCache {
  Activation scheme;
  int layers = 0;         // layers with stored scales; the others use 1
  bool per_head = false;  // a scale for each KV head
  bool affine = false;    // k_bias and v_bias are there
};
std::string to_string(const KvCache&);  // kv:fp8_tensor_static, with +head and +affine

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
