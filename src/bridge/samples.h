// What a model is calibrated or scored on: token ids, from a safetensors file or from text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bridge/session.h"

namespace qb {

// input_ids [b, t] (I64 or I32) of a safetensors file, one vector a row. Errors: not_found, bad_input.
Result<std::vector<std::vector<int32_t>>> read_input_ids(const std::string& path);

struct SampleLimits {
  int64_t samples = 512;  // the first ones of the file
  int64_t tokens = 512;   // of each, from its beginning
};
// A file whose name ends in .safetensors holds ids; any other is text with a sample in each line that is not empty, with what the tokenizer puts around a text.
// An empty path: our own text. Errors: not_found, bad_input.
Result<std::vector<std::vector<int32_t>>> read_samples(const Session&, const std::string& path, const SampleLimits& limits);

// Of samples and of what else, in words, something made of them depends on.
std::string samples_digest(std::string_view beside, std::span<const std::vector<int32_t>> samples);

// Text that comes with the program, a sample in each line.
std::string_view own_samples();

}  // namespace qb
