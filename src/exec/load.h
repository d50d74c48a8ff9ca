// Brings rows of an input into memory as a dense matrix, whatever its view looks like.
//
// A dense view is one read into its place. Rows that are dense each are one read per row. Anything else is read line by line into a staging area (a line runs
// along the axis with the smaller stride, so that a transposed matrix costs what it holds, not its whole extent for each row) and gathered from there. Packed
// integer codes (load_codes.cc) become one byte each, four-bit floats two to a byte along their rows. Rows in pieces, and parts, are read one by one, and so
// are inputs that consist of others; numbers that stand for several are read once and repeated. Of masked
// matrices (load_masked.cc) a row is what its bits say, and an error where the bits do not name as many numbers as it has. Inputs that are changed while they
// are read (load_changed.cc) bring their factors into the staging area.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/source.h"
#include "prog/program.h"

namespace qb {

// Collects reads, so that one batch serves several inputs; passes a full batch on.
class Requests {
 public:
  explicit Requests(Source& source) : source_(source) {}
  Result<void> add(FileId file, uint64_t offset, std::span<std::byte> into);
  Result<void> flush();

  static constexpr size_t batch = 4096;

 private:
  Source& source_;
  std::vector<ReadRequest> pending_;
};

class Load {
 public:
  Load(const prog::Input& input, int64_t begin, int64_t end);

  // Bytes of the dense rows, and of the area that gathering needs besides (0 for most views).
  uint64_t bytes() const { return static_cast<uint64_t>(rows_) * row_bytes_; }
  uint64_t staging() const;

  Result<void> request(std::byte* rows, std::byte* staging, Requests&) const;
  // After the reads: puts the elements in place.
  Result<void> gather(std::byte* rows, std::byte* staging) const;

 private:
  uint64_t own_staging() const { return static_cast<uint64_t>(lines_ * line_bytes_ + slack_); }
  Result<void> request_stored(std::byte* rows, std::byte* staging, Requests&) const;
  Result<void> gather_stored(std::byte* rows, std::byte* staging) const;
  Result<void> change(std::byte* rows, std::byte* staging) const;
  void plan_lines();
  void cut(const prog::Input& input, int64_t end);
  void join(const std::vector<prog::Input>& parts, int64_t end);
  Result<void> put_together(std::byte* rows, std::byte* staging) const;
  // Parts that are read into the staging area and put together from there.
  bool staged() const { return join_ && (join_->along == 1 || join_->turns); }
  void thin(const prog::Input& input, int64_t end);
  void repeat(std::byte* rows, const std::byte* few) const;
  // Packed codes. A line is one unit of the slow axis (a row or column, the lanes of one, or a 32-bit word of a stream), as far as the fast axis reaches.
  void plan_codes(int64_t end);
  Result<void> request_codes(std::byte* staging, Requests&) const;
  void gather_codes(std::byte* rows, const std::byte* staging) const;
  void gather_planes(std::byte* rows, const std::byte* staging) const;
  void plan_masked(const prog::Input& input, int64_t end);
  Result<void> request_masked(std::byte* staging, Requests&) const;
  Result<void> gather_masked(std::byte* rows, const std::byte* staging) const;
  std::byte code_of(unsigned stored) const;
  // Where element `index` of an axis starts: its unit, and the bit within.
  struct Spot {
    int64_t unit, bit;
  };
  Spot spot(size_t axis, int64_t index) const;
  int64_t pitch(size_t axis) const { return view_.words[axis] != 0 ? view_.words[axis] : view_.stride[axis]; }

  int64_t bit_of(int64_t i, int64_t j) const { return view_.offset + (begin_ + i) * view_.stride[0] + j * view_.stride[1]; }

  FileId file_;
  uint64_t offset_;
  ir::View view_;
  int64_t width_, begin_, rows_, cols_;
  uint64_t row_bytes_;
  bool dense_, dense_rows_;
  int along_ = 1;                       // the axis that a line runs along
  int64_t lines_ = 0, line_bytes_ = 0;  // of the staging area
  int64_t slack_ = 0;                   // bytes behind it: codes are read across its end, lines of pieces begin at bits of their own
  // Of masked matrices: the tensor of the bits, where these rows' bits and numbers lie, and, unless all rows have as many, where the numbers of each row begin.
  struct Masked {
    std::string tensor;
    FileId file = 0;
    uint64_t bits_at = 0, numbers_at = 0;
    int64_t bits_row = 0, count = 0;  // bytes of a row of bits; numbers of all rows
    std::vector<int64_t> starts;
  };
  std::optional<Masked> masked_;
  std::optional<ir::Join> join_;  // how pieces_ lie, where they are parts
  bool repeated_ = false;         // then pieces_ has what is stored, read into the staging area
  std::vector<Load> pieces_;      // where rows lie in several; each has its part of the rows and of the staging area
  bool packed_ = false, integers_ = false;
  int64_t first_unit_ = 0, first_bit_ = 0, line_bits_ = 0;  // of packed codes: the first line, where lines begin along the fast axis, how long they are

  Elem elem_;
  double times_, plus_;
  struct Factor;
  std::vector<Factor> by_;  // what the numbers are multiplied by
};

// The factors of these rows or of all columns.
struct Load::Factor {
  Load load;
  Elem elem;
  bool of_rows;
};

}  // namespace qb
