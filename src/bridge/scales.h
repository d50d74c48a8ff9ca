// How large the scales of a checkpoint are: of each tensor its largest, by powers of two, for each scheme and role.
#pragma once

#include <vector>

#include "bridge/session.h"
#include "exec/context.h"

namespace qb {

struct ScaleHistogram {
  std::string scheme;  // "" for scales of the KV cache
  ir::Role role = ir::Role::scale;
  int64_t tensors = 0, count = 0, zero = 0, negative = 0, not_finite = 0;
  double least = 0, largest = 0;  // magnitudes of all, as they multiply
  int first = 0;                  // the octave of counts[0]: from 2^first up to twice that
  std::vector<int64_t> counts;    // tensors whose largest scale lies there, without empty octaves at either end
};

// Reads every scale once, within the budget of the context. Reciprocals are turned: all numbers are what the codes are multiplied by. An Error only for the
// outside world.
Result<std::vector<ScaleHistogram>> scale_histograms(const Session&, Context&);

}  // namespace qb
