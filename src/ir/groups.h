// The same numbers in smaller groups: another view of the scales, in which each of them stands for several groups.
#pragma once

#include "ir/checkpoint.h"

namespace qb::ir {

// Groups of `columns` in place of larger ones that they divide. False, and nothing changed, where scales do not lie in groups along the columns.
// Activations are as they were.
bool split_groups(Module&, int32_t columns);

}  // namespace qb::ir
