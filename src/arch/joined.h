// Modules that lie in one matrix: q, k and v; gate and up; the experts of a layer.
//
// Goal: one place that says what the matrix of several modules is, whichever way a checkpoint goes: read as it is stored, taken apart, put together. Source of
// truth: the rows of a family (ModuleRow::fused, ModuleRow::stacked). Non-goal: which numbers lie where (ir/parts.h).
#pragma once

#include <span>
#include <vector>

#include "arch/family.h"

namespace qb::arch {

// Modules, by their place in `modules`, that share a word and may be joined: those with one `fused` word, or, of experts, with one `stacked` word. They are in
// the order in which their rows lie in the matrix.
std::vector<std::vector<size_t>> fusable(std::span<const Module> modules);
std::vector<std::vector<size_t>> stackable(std::span<const Module> modules);

// The module that the others are parts of. Preconditions: the parts are one group of the function above.
Module fused(std::vector<Module> parts);
Module stacked(std::vector<Module> parts, const Family& family);

// The modules of a layer as the tensors (sorted by name) have them: joined where there are tensors of the whole and no weight of its parts; where there are
// neither, as the family usually has them.
std::vector<Module> as_stored(std::vector<Module> one_by_one, const Family& family, std::span<const TensorInfo> tensors);

}  // namespace qb::arch
