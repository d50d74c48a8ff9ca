// Quantizing what is quantized already: weights for which a configuration asks another scheme become plain float32 numbers that are made while they are read.
//
// Goals: the bytes that `convert --to dense --dtype f32` and `quantize` after it would give (pre-scales, low-rank parts and transforms are in the weights), in
// blocks, without that checkpoint on disk; weights that have the scheme already keep their codes. Non-goal: stacked experts, which no recipe makes: they are
// refused.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bridge/session.h"
#include "bridge/team.h"
#include "exec/derived_source.h"
#include "pass/quantize.h"

namespace qb {

struct Requantized {
  struct Weight {
    std::string path, from;  // from: its scheme
  };
  std::vector<Weight> weights;            // weight i is the output of program i of the source
  std::shared_ptr<DerivedSource> source;  // null: there is nothing of the kind
  FileId file = 0;                        // under which it has them
  bool lost_inputs = false;               // some had static scales of activations
};

// Changes the modules of `checkpoint`, marked by an empty Module::make, and takes the memory that reading them needs out of context.limits. False: `diag` says
// why (pattern-invalid, what writing dense may report).
bool requantize(const Session&, ir::Checkpoint& checkpoint, const pass::QuantizeOptions&, Context&, Requantized&, Diagnostics& diag);

// The relative error of each weight as it is in the checkpoint at `out`: the root of the squares' sum of all differences over that of all numbers.
// Together: each process compares some of the weights, and all get all.
Result<std::map<std::string, double>> requantize_errors(const Requantized&, const std::filesystem::path& out, Context&, const Together&);

}  // namespace qb
