// Weights of integers in 32-bit words under the names that AutoAWQ and GPTQ share: qweight, qzeros and scales, most of them with one row for each input or
// group.
#pragma once

#include <string>
#include <string_view>

#include "dialect/reading.h"

namespace qb {

// The tensors of one such module: finds and claims them, checks dtypes and shapes, and adds them to the module's parts. Every check that fails has reported.
class PackedReading {
 public:
  PackedReading(Reading& reading, ir::Module& module) : r_(reading), m_(module) {}

  // Claims what there is. False: qweight or scales are missing, or qweight is no matrix of words. Zero points that are needed and missing are reported.
  bool begin(bool zeros);
  const TensorInfo& code() const { return *code_; }
  const TensorInfo& scale() const { return *scale_; }
  const TensorInfo* zero() const { return zero_; }

  // A matrix of this dtype; `what` is for messages.
  bool matrix(const TensorInfo&, Elem dtype, std::string_view what) const;
  bool float_matrix(const TensorInfo&) const;
  // A report of a tensor that should be there, by the word behind the module's path.
  void absent(const char* problem, std::string_view word, std::string expected) const;
  // False, after a report of the tensor as it is.
  bool wrong(const TensorInfo&, const char* problem, std::string expected) const;
  // Exactly this shape; for messages it belongs to the module's weight.
  bool has_shape(const TensorInfo&, int64_t rows, int64_t cols) const;
  void add(const TensorInfo&, ir::Role, Elem, const ir::View&) const;
  // scales [groups, n], one row for each group, or as the view says. Formats that hold them as F32 note what they were.
  void add_scale(const ir::View&) const;
  void add_scale(int64_t groups) const;

 private:
  Reading& r_;
  ir::Module& m_;
  const TensorInfo *code_ = nullptr, *zero_ = nullptr, *scale_ = nullptr;
};

// Whether the module has any of the tensors.
bool has_packed(const Reading&, const ir::Module&);

// ---- writing --------------------------------------------------------------------------------------------------------------------------------------------
// A dialect says how it wants integers to lie by the view that it reads them with; the program that makes them so follows from it.

// Integers of `code` under another name, as words (I32) that lie as the view says, or as one to a byte (I8). Their bytes where they lie so already. Rows of
// words that the shape has beyond theirs are zeros.
void write_packed(const ir::Stored&, Elem code, std::string name, std::vector<int64_t> shape, const ir::View& as, Export&);
// Groups of a row of k columns.
int64_t groups_of(const ir::QuantType&, int64_t k);

// Where the parts of a weight go that is quantized now, [columns, rows] each: qweight and qzeros as words that lie as the views say, scales [groups, n].
struct PackedPart {
  std::string name;
  std::vector<int64_t> shape;
  ir::View as;
};
// One program for all of them; zero points only where the scheme has them. Precondition: the views' words lie along the rows of the weight or are streams down
// its columns.
void write_made_packed(const ir::Module&, PackedPart codes, PackedPart zeros, std::string scales, Export&);
// Zero points of symmetric integers, for formats that have them all the same.
void write_middle(Elem code, std::string name, std::vector<int64_t> shape, const ir::View& as, Export&);
// A matrix of scales, as [columns, rows].
void write_transposed(const ir::Stored&, std::string name, const WriteContext&, Export&);
// Its rows filled up with zeros.
void write_padded(const ir::Stored&, std::string name, int64_t columns, const WriteContext&, Export&);
// The order of groups that follow the columns; a group of 0 is the whole row.
void write_groups(std::string name, int64_t columns, int32_t group, Export&);

// A matrix of numbers of `bits`, by its transpose behind each other: scales [groups, n].
ir::View transposed(int64_t rows, int64_t cols, int bits);

}  // namespace qb
