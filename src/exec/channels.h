// Whether the codes of each output channel of a weight say anything: counts channels whose codes are all zero (of integers: all one code), and those of which
// more than half are the largest codes that there are.
//
// It sees the bytes of the tensor as they are stored, in order and in pieces of any size, and needs memory for one row of them at most.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ir/checkpoint.h"

namespace qb {

// How a tensor's codes of four or eight bits belong to channels. The tensor is `rows` of `row_bytes`.
struct ChannelGrid {
  Elem code = Elem::e4m3;
  int width = 8;  // bits of a code as it is stored
  bool offset_binary = false;
  int64_t rows = 0, row_bytes = 0;
  bool along_rows = true;  // a channel is a row; else a column of so many bytes
  int64_t column_bytes = 1;
  bool split = false;    // the two codes of a byte belong to two channels
  int64_t restart = 0;   // columns begin anew after so many rows, where weights are stacked; 0: never
  ir::Lanes lanes = {};  // split columns: the order of a word's channels
};
// Nothing where codes lie in another way: in planes, across bytes, in pieces, sparse.
std::optional<ChannelGrid> channel_grid(const ir::Stored& code, const ir::Module&);

struct ChannelCounts {
  int64_t channels = 0, dead = 0, saturated = 0;
  int64_t first_dead = -1, first_saturated = -1;  // outputs of the weight
  unsigned largest = 0;                           // of float codes: the largest without its sign
};

class Channels {
 public:
  explicit Channels(const ChannelGrid&);

  void add(std::span<const std::byte> piece);              // the next bytes
  const ChannelCounts& counts() const { return counts_; }  // all rows were added

  // Bytes that counting along this grid needs.
  static uint64_t memory(const ChannelGrid&);

 private:
  // What is known of the codes of one channel, or of one place in all rows: the largest difference to the first (of floats: to zero), how many are at an end
  // of the range, of the last few rows and of all.
  struct Seen {
    std::vector<uint8_t> first, most, recent;
    std::vector<uint32_t> tops;
    void resize(size_t n);
  };
  void add_row(const uint8_t* p, size_t n);
  void add_columns(const uint8_t* p, size_t at, size_t n);
  void flush();
  void finish_row();
  void finish_columns();
  void note(int64_t channel, uint64_t codes, bool constant, uint64_t tops);

  ChannelGrid g_;
  bool integer_;
  uint8_t mask_, top_[3];
  int fields_;    // codes of a byte
  Seen seen_[2];  // by field; along rows of one place
  int64_t row_ = 0, rows_since_flush_ = 0, rows_of_columns_ = 0, stack_ = 0;
  size_t at_ = 0;  // within the row
  ChannelCounts counts_;
};

}  // namespace qb
