// Mixing schemes: which group of a model gets which scheme, so that the model loses least for its size, or is smallest for what it may lose.
//
// What each group loses with each scheme is measured one by one (sensitivity.h) and taken to add up, which calib/choice.h makes the best of; what the mixture
// as a whole loses is measured then, and both are said. The result is a configuration of the language that `quantize --config` reads.
#pragma once

#include "bridge/samples.h"
#include "bridge/sensitivity.h"

namespace qb {

struct MixRequest {
  std::vector<std::string> schemes;  // as in mix_space()
  std::string numerics;              // as in pass::quantize_options
  // One of them. bits: for each weight of the groups, of all that is stored for them but biases, right to three decimals; size: bytes of all tensors;
  // divergence: as the whole mixture has it on the samples.
  std::optional<double> bits, divergence;
  std::optional<uint64_t> size;
  Sensitivity by = Sensitivity::divergence;  // weights: nothing is run, and no divergence is known
  std::string samples;                       // as in read_samples
  SampleLimits limits;
  uint64_t tokens = 2048;              // of samples, as many whole ones as reach it
  size_t points = 6;                   // of the curve, evenly in bits, that are measured beside what is chosen; 0: neither they nor each scheme by itself
  std::filesystem::path measurements;  // the file (sensitivity_file.h); its directory is there
  std::function<std::function<void(const Progress&)>(std::string)> progress;  // of each stage; may be empty
};

struct MixPoint {
  std::string scheme;    // of uniform ones
  double bits = 0;       // of the groups
  uint64_t bytes = 0;    // of all tensors
  double predicted = 0;  // the sum of what groups cost; of layers, times what makes it right for the chosen one
  std::optional<double> measured;
};

struct Mixed {
  MixSpace space;
  Mix mix;
  std::string config;  // JSON
  MixPoint chosen;
  std::vector<MixPoint> uniform;  // each scheme by itself, where it fits everywhere
  std::vector<MixPoint> curve;    // the best of each size, from the smallest on; some of them measured
  int64_t tokens = 0;
  bool exact = true;  // the choice is the best there is, as far as losses add up
  SensitivityFile::Start start = SensitivityFile::Start::fresh;
};

// False: `diag` says why, as mix_space() does. An Error: a limit that is below the smallest mixture (says what that has), samples that cannot be read, a family
// that does not run, and those of sensitivity.h.
Result<bool> mix_schemes(const Session&, const JobOptions& job, const MixRequest&, Context&, Mixed&, Diagnostics& diag);

}  // namespace qb
