// Tensors that calibration has made, in place of what a checkpoint has: IR to IR, other places of the bytes.
//
// Goal: a job that follows reads its source through them, and knows nothing of algorithms: numbers that were changed are read as those of the checkpoint, and
// a weight whose codes were decided is a weight that is quantized already. Non-goals: making them (bridge/weights_work.h), reading them (io/added_source.h).
//   <tensor>             plain numbers of a tensor of the checkpoint, of its dtype and shape
//   code:<path>          of the linear at <path>: integers U8 [n, k], offset binary, others packed as recipes do; with it scale:, zero: (I8), global: (F32 [1])
//                        and order: (I32 [k])
//   prescale:<path>      [k]: what its inputs are multiplied by
//   range:<path>         F32 [2]: the least and the largest of its inputs, as they are then
//   inputs:<path>        F32 [k]: what they were multiplied by to become that, here or in what feeds them
#pragma once

#include <map>
#include <string>

#include "io/safetensors.h"
#include "ir/checkpoint.h"

namespace qb::pass {

struct Overlay {
  std::map<std::string, TensorInfo> tensors;  // `file` is the job's number for it
  std::map<std::string, double> scalars;      // the numbers of those that are one float
  std::string digest;                         // of everything that they depend on
};

// Plain numbers; before anything else is done to the checkpoint.
void change_numbers(ir::Checkpoint&, const Overlay&);
// The same where a model has to compute what it did: not those of modules with a prescale, which belong to inputs that are multiplied by it.
void change_numbers_alone(ir::Checkpoint&, const Overlay&);
// Codes and pre-scales, of modules that are to be made: after pass::quantize. Those with codes are quantized then, the others are still to be made.
void give_codes(ir::Checkpoint&, const Overlay&);
void give_codes(ir::Module&, const Overlay&);

}  // namespace qb::pass
