// A matrix that holds several modules (arch::Module::parts), taken apart: each of them as a module of its own, by other views of the same bytes.
//
// Goal: no number changes, and none is read. Scales for rows, groups and blocks go with their rows; numbers for the whole matrix (second level, inputs) are
// everyone's. Non-goal: putting matrices together (pass/forms.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/checkpoint.h"

namespace qb::ir {

// Part number `part` of the module. Nothing where the matrix may not be cut there: inseparable_by() says why. Where a cut goes through a block whose scale may
// be repeated, all parts have blocks that are as small as the cuts need.
std::optional<Module> part_of(const Module& whole, const arch::Module& topology, size_t part);

// What is in the way of taking the matrix apart, in words; empty: nothing.
std::string inseparable_by(const Module& whole, const arch::Module& topology);

// Several stored matrices as one. Preconditions: one element, equal sizes across; in turns, equal sizes.
Stored joined(std::vector<Stored> parts, Join join);

// The part is a module with this path: what is written under the module's name has it, and notes about the whole are gone.
void rename(Module&, const std::string& path);

}  // namespace qb::ir
