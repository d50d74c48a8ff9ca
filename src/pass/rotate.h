// A model in another basis that computes the same: Hadamard matrices spread outliers over many columns before anything is quantized. IR to programs.
//
// What is in a dense checkpoint takes all of it up, so no engine has to know (QuaRot, Ashkboos et al. 2024; SpinQuant's R1 and R2, Liu et al. 2024, with fixed
// signs where it learns them):
//   * the residual stream: root mean squares stay what they are, so each norm hands its weights to the linears that read it and becomes ones; these linears'
//     columns, the rows of those that write, and the embedding's rows are in the new basis; a head that was the embedding becomes one of its own.
//   * within attention: the rows of each head of v, and the columns of each head of o.
// Goals: what the algebra does not allow is named, and nothing else is done. Non-goals: rotations at run time (SpinQuant's R3 and R4), learned ones, a basis
// whose blocks would make memory grow with the model: the rows of a block are read together, so a block has at most 1024 of them and 2^21 numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "ir/checkpoint.h"
#include "pass/quant_config.h"
#include "prog/program.h"

namespace qb::pass {

struct Rotated {
  int64_t residual = 0, heads = 0;      // numbers in a block of each basis; 0: it stays as it is
  bool unties = false;                  // the head is a tensor of its own from now on
  std::vector<prog::Program> programs;  // of one output each
  // Tensors of the checkpoint as they become, and the head where it is a new one: the output of the program `first`, and of those behind it until it is whole.
  // Norms that become ones share a program.
  struct Tensor {
    std::string name;
    Elem dtype = Elem::bf16;
    std::vector<int64_t> shape;
    size_t first = 0;
  };
  std::vector<Tensor> tensors;
};

// "the residual stream in blocks of 64, values in blocks of 64"
std::string to_string(const Rotated&);

// The checkpoint as a dialect has read it. False (rotation-unsuited): nothing that is asked for can be done. One of two alone is a warning (rotation-partial).
// Memory: a few hundred bytes for each tensor.
bool rotate(const ir::Checkpoint&, Rotation, Rotated&, Diagnostics&);

}  // namespace qb::pass
