// Dynamic activation scales that one token, or the whole input, shares: from the range of its numbers to the scale, and from there to the numbers that a
// product sees (the formulas of inputs.h). Apart, because a rank that has some columns of an input needs the range of all of them.
#pragma once

#include <optional>
#include <span>

#include "kernel/inputs.h"

namespace qb::kernel {

// Of fp8 and of integers without zero points `most` is the largest magnitude and `least` does not matter. NaN stays.
struct InputRange {
  float least = 0, most = 0;
};

// Whether a problem's inputs have such scales, and how many for m tokens: one for each, or one for all. 0: none; groups and stored scales are no such ones.
int64_t input_ranges(const Problem& problem);
// Of the problem's x [m, k].
void find_ranges(const Problem& problem, const float* x, std::span<InputRange> ranges);
// The range of both together.
InputRange both(const InputRange& a, const InputRange& b);
// out[m, k]: x as the product sees it, in float32; may be x.
void quantize_by_range(const Problem& problem, const float* x, std::span<const InputRange> ranges, float* out);

struct IntegerScale {
  float scale = 0, zero = 0;
};
IntegerScale integer_scale(const IntegerInputs& in, const InputRange& range);
InputRange integer_range(const IntegerInputs& in, const float* x, int64_t count);
void round_integers(const IntegerInputs& in, const float* x, int64_t count, IntegerScale s, float* out);

}  // namespace qb::kernel
