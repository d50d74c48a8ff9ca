// Rows: how one dialect stores the tensors of one kind of quantized linear. A row serves reading and writing alike, so a new algorithm of a known shape is one
// more row in its dialect's table.
#pragma once

#include <span>
#include <string_view>

#include "dialect/dialect.h"
#include "dialect/reading.h"

namespace qb {

// The rank in which a dialect writes a scale. Readers accept every rank with the right number of elements.
enum class Rank : uint8_t {
  matrix,    // the code itself
  scalar0,   // []
  scalar1,   // [1]
  vector,    // [n]
  column,    // [n,1]
  grid,      // [ceil(n/rows), ceil(k/cols)]
  grid4,     // [ceil(n/rows), 1, ceil(k/cols), 1], and [] for a single block
  columns,   // [k]
  pair,      // [2]: n and k, as numbers
  factor_a,  // [r,k] of a low-rank part
  factor_b,  // [n,r]
  mx_bytes,  // [n, k/32, 16]: four-bit codes, the bytes of a block in an axis of their own
};

// Integer codes that do not lie one to a byte: streams of bits in 32-bit words, in offset binary, along the columns or along the rows; nibbles as
// ir::Nibbles says. masked: codes of a sparse weight, which are read alone (masked.h).
enum class Packing : uint8_t { none, words_along_columns, words_along_rows, row_pairs, high_first, masked };

enum class Presence : uint8_t { required, optional };

struct PartRow {
  ir::Role role;
  std::string_view suffix;
  Elem container;
  Rank rank;
  bool any_float = false;  // writers keep the float dtype that they find; otherwise they write `container`
  ir::ScaleForm form = ir::ScaleForm::multiply;
  Presence presence = Presence::required;  // a part that the scheme has no need for is never asked for
  Packing packing = Packing::none;
};

struct Row {
  std::string_view label;                     // the dialect's word: NVFP4, float-quantized
  bool (*holds)(const ir::Scheme&) noexcept;  // which schemes it stores
  std::span<const PartRow> parts;
};

// The first row that holds the scheme; null when none does.
const Row* row_for(std::span<const Row> rows, const ir::Scheme& scheme);

// Shape in which a part is written for a matrix n x k; for a module. The first axis of stacked experts' tensors is the expert: what is said here of rows is
// said of those of all experts together ([n,k] becomes [experts, n / experts, k]), and a vector has one number for each expert.
std::vector<int64_t> part_shape(const PartRow&, const ir::Scheme&, int64_t n, int64_t k);
std::vector<int64_t> part_shape(const PartRow&, const ir::Module&);

// Claims the row's tensors for a module whose scheme is set and fills its parts, n and k. Problems: weight-missing, scale-missing, input-scale-missing,
// dtype-unexpected, weight-shape, scale-shape, group-size-mismatch, packed-shape-mismatch. False when the module cannot be used.
bool read_row(Reading&, const Row&, ir::Module&);

// Whether the row holds the module's tensors as they are: what it writes for them are their bytes. (Of integer codes; all others are stored in one way only.)
bool keeps_bytes(const Row&, const ir::Module&);

// Programs that write a module by a row of the target dialect (its parts, and its bias), appended to the export. The module's scheme is one that the row
// holds. `from` are values read, or the recipe's where the module is to be quantized.
void write_row(const Row&, const ir::Module&, const WriteContext&, Export&);

// A program that writes one stored tensor under another name, dtype, shape and form; shared by rows and by KV scales.
struct Target {
  std::string name;
  Elem dtype;
  std::vector<int64_t> shape;
  ir::ScaleForm form = ir::ScaleForm::multiply;
};
void write_stored(const ir::Stored&, Target, const WriteContext&, Export&);
// The tensor as it is, under its own name; or its bytes under another one.
void write_plain(const ir::Stored&, Export&);
void write_bytes(const ir::Stored&, std::string name, Export&);
// The dtype that a stored float had in the dialect that is written now, by the source's note and where no number changes; else the one that it has.
Elem noted_dtype(const ir::Stored&, const WriteContext&);

}  // namespace qb
