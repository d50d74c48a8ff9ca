// Who looks on while a model runs: what flows into its linears, and its keys and values on their way into the cache. Normal runs have nobody who does, and pay
// a comparison for each linear.
#pragma once

#include <cstdint>
#include <string>

#include "ir/checkpoint.h"

namespace qb::layer {

class Observer {
 public:
  virtual ~Observer() = default;
  // x: [rows, width] float32, one row for each token. Called by one thread at a time.
  virtual void see(const float* x, int64_t rows, int64_t width) = 0;
};

class Observers {
 public:
  virtual ~Observers() = default;
  // Asked while modules are loaded; the observer outlives them. input_scale: what flows into the linear at `path`, before anything is done to it; output_scale:
  // what comes out of it, when all is done; k_scale, v_scale: keys (after rope) and values of the attention module at `path`. Null: nobody looks.
  virtual Observer* of(const std::string& path, ir::Role role) = 0;
};

}  // namespace qb::layer
