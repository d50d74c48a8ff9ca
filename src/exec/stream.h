// Walks one input's numbers in blocks that fit a budget: for reductions and surveys, which want numbers and not rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/result.h"
#include "exec/buffer.h"
#include "exec/load.h"
#include "prog/program.h"

namespace qb {

class Stream {
 public:
  // Blocks of at most `bytes` bytes, gathering included, and at least one row of a view that is not dense.
  Stream(const prog::Input& input, uint64_t bytes);

  int64_t blocks() const { return blocks_; }
  uint64_t block_bytes() const;  // memory that one block needs
  int64_t cols() const { return input_.view.dims[1]; }

  struct Block {
    const std::byte* data;
    int64_t first, count;  // elements: index of the first one, how many
  };
  Result<Block> read(int64_t index, Source&, Buffer&) const;

 private:
  prog::Input input_;  // a dense one as a single column, unless its rows and columns have factors
  int64_t height_ = 1, blocks_ = 0;
};

}  // namespace qb
