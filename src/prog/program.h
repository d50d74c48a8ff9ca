// Programs: how output tensors come from stored ones. Values only: ids and numbers, no pointers; comparable, printable.
//
// A program makes the tensors of one group (a quantized weight is two or three tensors) from its inputs, one block of rows after the other. Values are
// numbered: the inputs first, then the results of each op in order. A value with rows_per = r has one row for every r rows of the program; r = 0 marks a value
// that does not depend on the row (a scalar), delivered with the first block. Integer codes of any width lie one to a byte once they are read (i8).
// Non-goals: control flow, general expressions. Rejected: closures as ops (not printable, not comparable, not serialisable to another machine).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "ir/checkpoint.h"
#include "ir/layout.h"
#include "ir/types.h"

namespace qb::prog {

using ValueId = int32_t;

struct Input {
  std::string tensor;  // for messages
  FileId file = 0;
  uint64_t offset = 0, bytes = 0;
  Elem elem = Elem::u8;
  ir::View view;
  int64_t rows_per = 1;
  ir::Mask mask = {};  // rows are read with the elements that it leaves out
  // As in ir::Stored: the numbers are changed while they are read, so that whoever uses them need not know.
  double times = 1, plus = 0;
  std::vector<Input> by = {};
  std::vector<Input> joined = {};
  ir::Join join = {};
  bool changed() const { return times != 1 || !by.empty(); }
  friend bool operator==(const Input&, const Input&) = default;
};

// A number taken over whole tensors before the first row is made. Equal reductions of several programs are computed once (q, k and v share one amax).
enum class ReduceKind : uint8_t { absmax };
struct Reduction {
  ReduceKind kind = ReduceKind::absmax;
  std::vector<Input> over;
  friend bool operator==(const Reduction&, const Reduction&) = default;
};

// Bytes as they are. The result has the input's element and rows.
struct Copy {
  ValueId src;
  friend bool operator==(const Copy&, const Copy&) = default;
};
// Bytes known to the plan (an original scalar brought back from quantbridge.origin).
struct Literal {
  Elem elem;
  std::string bytes;
  friend bool operator==(const Literal&, const Literal&) = default;
};
// A number format changed, each number rounded to nearest even (widening is exact). Floats only.
struct Recode {
  ValueId src;
  Elem to;
  friend bool operator==(const Recode&, const Recode&) = default;
};
// A scale's form changed between multiply and divide: 1/x, rounded once in the source's format.
struct Rescale {
  ValueId src;
  friend bool operator==(const Rescale&, const Rescale&) = default;
};
// The exact product (code - zero) * scale * global (or / global where global_form is divide), rounded once to float32.
struct Dequantize {
  ir::QuantType type;
  ValueId code, scale;
  ValueId global = -1;
  ir::ScaleForm scale_form = ir::ScaleForm::multiply, global_form = ir::ScaleForm::multiply;
  ValueId zero = -1;   // a number for each scale, where the type has zero points
  ValueId order = -1;  // i32 for each column: the group whose scale and zero it has; -1 everywhere: groups follow each other
  friend bool operator==(const Dequantize&, const Dequantize&) = default;
};
// (src + b a) * prescale: what a matrix does together with a low-rank part and factors of its inputs. Sums of b a in double over r, rounded once to float32
// with the rest. All are f32; b has a row of r numbers for each row, a [r,k] and prescale [k] lie in one row.
struct Fold {
  ValueId src;
  ValueId a = -1, b = -1, prescale = -1;  // -1: without
  friend bool operator==(const Fold&, const Fold&) = default;
};
// What a matrix does together with a map of its inputs (its columns) or of its outputs (its rows), in double, rounded once to float32: the blocks of each row
// (or column) as vectors, times matrix / divisor or its transpose. src is f32; the matrix, floats of any width, lies in one row.
struct Rotate {
  ValueId src, matrix;
  bool down = false;  // blocks of rows, which blocks of the program do not cut
  bool transposed = false;
  double divisor = 1;
  friend bool operator==(const Rotate&, const Rotate&) = default;
};
// An axis of a matrix in the basis of Hadamard matrices: number i gets the sign of num/hadamard.h at i % period, and every `block` numbers are multiplied by
// Sylvester's matrix / sqrt(block). A block of 1: the axis stays as it is.
struct Basis {
  int64_t block = 1, period = 1;
  friend bool operator==(Basis, Basis) = default;
};
// A matrix whose columns are multiplied by `gains`, where there are any, before its rows (`along`) and its columns (`down`, whose blocks no block of the
// program cuts) are brought into another basis; in double, rounded once to `to`. src and gains, which lie in one row, are bf16, f16 or f32.
struct Hadamard {
  ValueId src;
  Elem to;
  ValueId gains = -1;  // -1: without
  Basis along = {}, down = {};
  friend bool operator==(const Hadamard&, const Hadamard&) = default;
};
inline constexpr int64_t largest_basis = 4096;  // numbers in a block
// Makes codes, scales and, for two-level types, the global scale or, for types that have them, zero points by a named recipe. Results in this order: code,
// scale[, global or zero]. Of a turned source, whose rows are the columns of what the recipe works on, it makes turned results: integers, whose groups go down
// the columns, so that blocks start at whole groups.
struct Quantize {
  std::string recipe;  // name in the recipe manifest
  ir::QuantType type;
  ValueId src;             // bf16, f16 or f32
  int32_t reduction = -1;  // index into Program::reductions: the amax, for types that need it
  friend bool operator==(const Quantize&, const Quantize&) = default;
};

// Each block of rows by itself, turned: column behind column. Of a turned value, row behind row again. Nothing but a recipe takes turned values.
struct Turn {
  ValueId src;
  friend bool operator==(const Turn&, const Turn&) = default;
};

// Codes (or the E4M3 scales of groups) in the order of bytes that a kernel reads (ir/layout.h): bytes, one row for each panel, or for each row where the layout
// is `rows`. Rows past the end and columns past k become zero codes.
struct Pack {
  ValueId src;
  ir::Layout layout;
  friend bool operator==(const Pack&, const Pack&) = default;
};

// Integer codes as 32-bit words, row by row: a stream of `bits` for each code in offset binary, the last word filled with zeros. What a view says of such words
// (ir/checkpoint.h) is said here too.
struct PackWords {
  ValueId src;
  int32_t bits;
  bool down = false;     // streams down the columns: 32 rows become one row of the result, `bits` rows of words behind each other, the last one cut at its end
  ir::Lanes lanes = {};  // of whole words: in another order than the codes'
  bool planes = false;
  ir::Less less = ir::Less::none;
  friend bool operator==(const PackWords&, const PackWords&) = default;
};

// Integer codes of four bits, two to a byte, in one of the orders of ir::nibbles(); of row_pairs two rows give one, so that blocks start at even rows, and
// four-bit floats are paired likewise.
struct PackNibbles {
  ValueId src;
  ir::Nibbles order;
  friend bool operator==(const PackNibbles&, const PackNibbles&) = default;
};

// Every row filled up with zero bytes to so many columns.
struct Pad {
  ValueId src;
  int64_t cols;
  friend bool operator==(const Pad&, const Pad&) = default;
};

// A row of integer codes for each row of the program, all of them 0.
struct Zeros {
  int64_t cols;
  friend bool operator==(const Zeros&, const Zeros&) = default;
};
// For each column the number of its group, as i32: the order of groups that no order says. A group of 0 holds all columns.
struct Groups {
  int64_t cols;
  int32_t group;
  friend bool operator==(const Groups&, const Groups&) = default;
};

using Op = std::variant<Copy, Literal, Recode, Rescale, Dequantize, Fold, Rotate, Hadamard, Quantize, Turn, Pack, PackWords, PackNibbles, Pad, Zeros, Groups>;

struct Output {
  std::string name;
  Elem dtype = Elem::u8;
  std::vector<int64_t> shape;
  ValueId value = 0;
  friend bool operator==(const Output&, const Output&) = default;
};

struct Program {
  std::vector<Input> inputs;
  std::vector<Reduction> reductions;
  std::vector<Op> ops;
  std::vector<Output> outputs;
  int64_t rows = 1;          // of the matrix it walks over
  int64_t row_multiple = 1;  // a block of rows starts at a multiple of this
  friend bool operator==(const Program&, const Program&) = default;
};

// What is known about a value before anything runs.
struct ValueType {
  Elem elem = Elem::u8;
  int64_t rows = 1, cols = 1, rows_per = 1;
  bool turned = false;  // a block of it lies column behind column
  uint64_t row_bytes() const { return static_cast<uint64_t>(cols) * static_cast<uint64_t>(bits(elem)) / 8; }
};
// The types of all values, or an error that says which op is malformed. A program that passes runs without further checks of its shape.
Result<std::vector<ValueType>> type_check(const Program&);

uint64_t output_bytes(const Output&);
std::string to_text(const Program&);  // a few lines, stable: golden tests and --dry-run

// A named question about stored numbers that a plan or a check depends on; the runner answers it by streaming the input once.
enum class SurveyKind : uint8_t {
  floats,       // scales or weights as numbers: how many are NaN, infinite, zero, negative, subnormal; least and largest magnitude
  narrow_bf16,  // how many float32 numbers are not bfloat16 numbers
  narrow_f16,
  rounding,    // of an input that is changed while it is read: how many results its format does not hold, and by how much the worst is missed
  equal,       // how many numbers are not those of the second input at the same place
  dead_codes,  // blocks with a code that is not zero whose scale is (dead), or is below the normal numbers of float32 (subnormal); input: scale; second: code
  integers,    // the same as `floats`, of zero points
  order,       // of the groups of columns: inexact are those in another group than their place says, dead those in a group that is not there
};
struct Survey {
  SurveyKind kind = SurveyKind::floats;
  Input input;
  std::vector<Input> second;  // dead_codes: the codes; equal: what is compared
  ir::QuantType type;         // dead_codes: how codes and scales belong together; order: its groups
  friend bool operator==(const Survey&, const Survey&) = default;
};
struct SurveyResult {
  int64_t count = 0, nan = 0, inf = 0, zero = 0, negative = 0, subnormal = 0, inexact = 0, dead = 0;
  double least = 0, largest = 0;  // of finite non-zero magnitudes
  double error = 0;               // rounding: the largest relative difference between a result and what was asked for
  int64_t first_bad = -1;         // element index of the first NaN, infinity, zero, negative or inexact number, in this order of interest
};

Input input_of(const ir::Stored&, int64_t rows_per);

}  // namespace qb::prog
