// Activations as the numbers that their codes stand for, in float32: what the reference multiplies, and panel kernels where codes and scales cannot stay apart.
//
// One row at a time, by the formulas of inputs.h; the same bits on every machine.
#pragma once

#include "kernel/input_range.h"

namespace qb::kernel {

// Whether there is a formula for the problem's activations.
inline bool knows_inputs(const Problem& p) {
  return quantization_of(p).has_value() || integer_inputs(p).has_value();
}

class QuantizedInputs {
 public:
  // Takes the scale of the whole tensor where the scheme has one. Precondition: knows_inputs. `args` outlives this.
  explicit QuantizedInputs(const RunArgs& args);
  void row(int64_t m, float* out) const;  // [k]

 private:
  const RunArgs& a_;
  std::optional<IntegerInputs> integers_;
  Quantization q_ = Quantization::f32;
  IntegerScale tensor_;  // of fp8 its scale alone
};

}  // namespace qb::kernel
