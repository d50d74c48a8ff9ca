// Numbers that a pass gives by value: no tensor of the checkpoint holds them.
#pragma once

#include <string>

#include "ir/checkpoint.h"

namespace qb::ir {

// `value` is a number of the container (f32, bf16, f16 or i8), stored in that form.
Stored given(Role role, Elem container, ScaleForm form, double value);
bool is_given(const Stored&);
// As a tensor would hold it. Precondition: is_given.
std::string given_bytes(const Stored&);

}  // namespace qb::ir
