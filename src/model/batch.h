// A ragged batch, checked, and cut into passes whose buffers are small.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "layer/attention.h"
#include "model/model.h"

namespace qb::model {

// Everything that a batch promises; an error names the first thing that does not hold.
Result<void> check_batch(const Batch& batch, const KvCache& cache, int64_t vocab, int64_t max_positions);

// Tokens [begin, end) of a batch: the runs of its sequences, and which rows' logits are wanted. Storage is kept from one pass to the next.
struct BatchPass {
  int64_t begin = 0, end = 0;
  std::vector<layer::AttentionRun> runs;  // rows are counted from `begin`
  std::vector<int32_t> sequences;         // of each run
  std::vector<int64_t> wanted;            // rows, ascending
  int64_t count() const { return end - begin; }
  void cut(const Batch& batch, int64_t first, int64_t last);
};

// The length that the rope of a sequence goes by.
int64_t rope_length(const Batch& batch, int64_t sequence);

}  // namespace qb::model
