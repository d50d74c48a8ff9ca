// MXFP4 in stacked experts, as gpt-oss has it under OpenAI's names and Hugging Face's: [experts, outputs, inputs / 32, 16] bytes of four-bit codes, with a byte
// of exponent for each block.
#pragma once

#include <string>

#include "dialect/row.h"

namespace qb {

const Row& mxfp4_stack_row();

// Reads the "blocks" and "scales" of a stack, and its bias. False where it has neither. `why`: what says that it is quantized.
bool read_mxfp4_stack(Reading&, ir::Module&, std::string why);

}  // namespace qb
