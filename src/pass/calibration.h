// What was measured on data becomes scales of activations, keys and values: IR to IR, no data.
//
// Goals: the plan that follows carries the scales by value (ir/given.h), so that it can be printed and compared like any other. Non-goal: measuring
// (calib/calibrate.h).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/diagnostics.h"
#include "ir/checkpoint.h"
#include "recipe/static_scale.h"

namespace qb::pass {

// Something that is measured: the inputs of the linear at `path` (input_scale), the keys or values of the attention module there (k_scale, v_scale), or the
// linear's weights before they are rounded, and those of modules that are fused with it (stage).
struct Measured {
  std::string path;
  ir::Role role = ir::Role::input_scale;
  friend bool operator<(const Measured& a, const Measured& b) { return std::tie(a.path, a.role) < std::tie(b.path, b.role); }
};

struct Ranges {
  std::map<Measured, recipe::Range> measured;
  std::optional<recipe::Range> otherwise;  // of everything else, for plans that are made before anything is measured
};

// What has no scale yet: of modules that are to be quantized the inputs, if their scales are static, and the FP8 stage of ModelOpt's W4A8_AWQ; keys and values,
// where the cache is quantized.
std::vector<Measured> unmeasured(const ir::Checkpoint&);

// Gives all of them scales, inputs with the numerics of their weight's recipe, keys and values with these. ModelOpt has one input scale for a projection of all
// experts of a layer. Problems: recipe-missing (no producer has a formula), calibration-range.
bool give_scales(ir::Checkpoint&, const Ranges&, recipe::Numerics, Diagnostics&);

}  // namespace qb::pass
