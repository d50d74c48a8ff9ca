// What is between the layers of a model for many samples: in memory while that is little, else in a file that disappears with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "base/result.h"
#include "io/posix_file.h"

namespace qb::calib {

class HiddenStates {
 public:
  // `tokens` of each sample, `width` floats for each token; at most `memory` bytes of memory, else a file without a name in the directory `scratch`.
  // Errors: io.
  static Result<HiddenStates> make(std::span<const int64_t> tokens, int64_t width, uint64_t memory, const std::filesystem::path& scratch);

  // All of one sample, [tokens, width]. Errors: io, out_of_space.
  Result<void> load(size_t sample, std::span<float> into) const;
  Result<void> store(size_t sample, std::span<const float> from);
  bool in_memory() const { return !file_; }

 private:
  std::vector<uint64_t> begins_;  // of each sample, in floats
  std::vector<float> floats_;
  Fd file_;
};

}  // namespace qb::calib
