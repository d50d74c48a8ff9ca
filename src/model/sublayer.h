// One half of a decoder layer: what mixes tokens, or what is done to each of them on its own. The decoder around them knows nothing about either.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "layer/feed_forward.h"
#include "layer/rope.h"
#include "model/batch.h"
#include "model/model.h"

namespace qb::model {

using NamedLinears = std::vector<std::pair<std::string, const layer::Linear*>>;

// What a pass through the layers works with.
struct Step {
  struct Turns {
    const float *cos, *sin;  // [rows, half]
    int64_t half;
  };
  const BatchPass& pass;
  KvCache& cache;
  int64_t layer;  // in the cache
  std::span<const Turns> ropes;
  bool reference;  // as in Options
  layer::KvRounding through;
  layer::Tools tools;

  layer::KvLayer kv(int64_t kv_heads, int64_t head_dim, const layer::KvScales& k, const layer::KvScales& v) const;
  // f(row, position, table) for every row, spread over the threads.
  template <class F>
  void for_rows(const F& f) const {
    const auto part = [this, &f](int64_t begin, int64_t end) {
      for (const layer::AttentionRun& run : pass.runs)
        for (int64_t row = std::max(begin, run.first_row); row < std::min(end, run.first_row + run.count); ++row)
          f(row, run.first_position + row - run.first_row, run.table);
    };
    if (pass.count() == 1) return part(0, 1);
    tools.pool.ranges(pass.count(), 1, part);
  }
  void attend(const layer::AttentionArgs& args) const;
};

class Sublayer {
 public:
  virtual ~Sublayer() = default;
  virtual int64_t scratch_per_row() const = 0;  // floats
  // x: [rows, hidden], the normed input, overwritten with what is added to the residual stream.
  virtual void run(const Step& step, float* x, float* scratch) = 0;
  virtual void add_linears(NamedLinears& out) const = 0;
  virtual const layer::Linear& first() const = 0;  // that runs
};

}  // namespace qb::model
