// The op that makes a weight's codes and scales inside a program: on the way to a file and on the way to a kernel it is the same.
#pragma once

#include "ir/checkpoint.h"
#include "prog/program.h"

namespace qb::recipe {

// Makes them of the plain numbers in value `source`; the reduction that the recipe needs is added to the program. Precondition: the module is to be made
// (ir::Module::make) and has a scheme.
prog::Quantize quantize_op(const ir::Module& module, prog::ValueId source, prog::Program& program);

}  // namespace qb::recipe
