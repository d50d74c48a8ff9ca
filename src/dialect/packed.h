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

  // Claims what there is. False: qweight or scales are missing, or qweight is no matrix of words.
  bool begin();
  const TensorInfo& code() const { return *code_; }
  const TensorInfo& scale() const { return *scale_; }
  const TensorInfo* zero() const { return zero_; }

  // A matrix of this dtype; `what` is for messages.
  bool matrix(const TensorInfo&, Elem dtype, std::string_view what) const;
  bool float_matrix(const TensorInfo&) const;
  // False, after a report of the tensor as it is.
  bool wrong(const TensorInfo&, const char* problem, std::string expected) const;
  // Exactly this shape; for messages it belongs to the module's weight.
  bool has_shape(const TensorInfo&, int64_t rows, int64_t cols) const;
  void add(const TensorInfo&, ir::Role, Elem, const ir::View&) const;
  // scales [groups, n], one row for each group.
  void add_scale(int64_t groups) const;

 private:
  Reading& r_;
  ir::Module& m_;
  const TensorInfo *code_ = nullptr, *zero_ = nullptr, *scale_ = nullptr;
};

// Whether the module has any of the tensors.
bool has_packed(const Reading&, const ir::Module&);

// A matrix of numbers of `bits`, by its transpose behind each other: scales [groups, n].
ir::View transposed(int64_t rows, int64_t cols, int bits);

}  // namespace qb
