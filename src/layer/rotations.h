// Matrices that the inputs or outputs of linears go through (ir::Transform), loaded once for all linears that share one.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <tuple>

#include "base/result.h"
#include "exec/context.h"
#include "host/threads.h"
#include "ir/checkpoint.h"
#include "num/rotation.h"

namespace qb::layer {

class Rotations {
 public:
  Result<std::shared_ptr<const Rotation>> load(const ir::Transform&, Source&, Context&);
  size_t bytes() const { return bytes_; }  // of all that were loaded

 private:
  std::map<std::tuple<FileId, uint64_t, bool>, std::shared_ptr<const Rotation>> loaded_;
  size_t bytes_ = 0;
};

// Every block of `count` numbers, which are whole blocks; `to` may be `from`. The result does not depend on the number of threads.
void rotate(const Rotation&, const float* from, float* to, int64_t count, host::ThreadPool&);

}  // namespace qb::layer
