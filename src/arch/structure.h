// Modules from the tensors alone, where no family says what they are: a weight with two dimensions is a linear or, by its name, an embedding; one with one
// dimension a norm; a module with projections of keys and values is an attention; the rest is carried along.
//
// Source of truth: the names that producers give to the tensors of a quantized weight. Non-goals: what shares an input, what is cut how, what should be there.
#pragma once

#include <span>
#include <string_view>

#include "arch/family.h"

namespace qb::arch {

// Whether a tensor's name begins with "<path>."; the tensors are sorted by name.
bool has_tensors(std::span<const TensorInfo> tensors, std::string_view path);

// Whether the last word of a tensor's name says that it belongs to a quantized weight or to a KV cache.
bool is_quantization_word(std::string_view last);

// Adds a module for each path with tensors that no module of `out` has. Names that begin with `except` are not looked at, if it is not empty.
void add_by_structure(std::span<const TensorInfo> tensors, std::string_view except, Topology& out);

}  // namespace qb::arch
