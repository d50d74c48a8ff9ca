// Whether the codes of each output channel of a weight say anything: counts channels whose codes are all zero (of integers: all one code), and those of which
// more than half are the largest codes that there are.
//
// It sees the bytes of the tensor as they are stored, in order and in pieces of any size, and needs memory for one row of them at most.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ir/checkpoint.h"
#include "num/isa.h"

namespace qb {

// How a tensor's codes of two, four or eight bits belong to channels. The tensor is `rows` of `row_bytes`.
struct ChannelGrid {
  Elem code = Elem::e4m3;
  int width = 8;  // bits of a code as it is stored
  bool offset_binary = false;
  int64_t rows = 0, row_bytes = 0;
  bool along_rows = true;  // a channel is a row; else a column of so many bytes
  int64_t column_bytes = 1;
  bool split = false;                // the codes of a byte belong to several channels
  int64_t restart = 0;               // columns begin anew after so many rows, where weights are stacked; 0: never
  ir::Lanes lanes = {};              // split columns: the order of a word's channels
  bool gathered = false;             // not the bytes as they are stored, but codes that were read through their view
  bool sparse = false;               // zeros are left out; codes of eight bits along rows
  std::vector<int64_t> starts = {};  // of sparse rows: where each begins, and where the last ends; empty: all have row_bytes
};
// Nothing where codes lie in another way: in planes, across bytes, in pieces.
std::optional<ChannelGrid> channel_grid(const ir::Stored& code, const ir::Module&);
// Of integers that lie so: as they are once they are read through their view, row by row and one to a byte. Nothing where outputs are not rows.
std::optional<ChannelGrid> gathered_grid(const ir::Stored& code, const ir::Module&);

struct ChannelCounts {
  int64_t channels = 0, dead = 0, saturated = 0;
  int64_t first_dead = -1, first_saturated = -1;  // outputs of the weight
  friend bool operator==(const ChannelCounts&, const ChannelCounts&) = default;
};

class Channels {
 public:
  Channels(const ChannelGrid&, Isa);

  void add(std::span<const std::byte> piece);              // the next bytes
  const ChannelCounts& counts() const { return counts_; }  // all rows were added

  // Bytes that counting along this grid needs.
  static uint64_t memory(const ChannelGrid&);

  // What is looked for in a byte: which bits of it differ from those of the first, among `compared`; which of its codes are at an end of the range, that is
  // `low` or the `more` patterns above it, modulo all patterns of `field`.
  struct Look {
    uint8_t compared, field, low, more;
  };

 private:
  // What is known of the bytes of one place in all rows, or of one row: the first (of floats and sparse rows: zeros), the bits that differ from it in any
  // other; by code of a byte how many are at an end of the range, of the last few rows and of all.
  struct Seen {
    std::vector<uint8_t> first, differ;
    std::array<std::vector<uint8_t>, 2> recent;
    std::array<std::vector<uint32_t>, 2> ends;
    void reset(size_t n, int counted);
  };
  size_t row_size() const;
  uint8_t alike(uint8_t byte) const;  // a byte whose codes all are the lowest of this one
  bool constant(size_t place, int field) const;
  void add_row(const uint8_t* p, size_t n);
  void add_columns(const uint8_t* p, size_t n);
  void finish_row();
  void flush();
  void finish_columns();
  void note(int64_t channel, uint64_t codes, bool constant, uint64_t ends);

  ChannelGrid g_;
  Isa isa_;
  Look look_;
  bool from_first_;  // codes are compared with the first, not with zero
  int fields_;       // codes of a byte
  int counted_;      // of these whose ends are counted: none of two bits, of which half may well be at an end
  Seen seen_;
  int64_t row_ = 0, rows_since_flush_ = 0, rows_of_columns_ = 0, stack_ = 0;
  size_t at_ = 0;  // within the row
  ChannelCounts counts_;
};

}  // namespace qb
