// Matrices in the basis of Hadamard matrices, tile by tile: a tile is a block of rows (eight, where columns stay as they are) by a block of columns.
#include "num/hadamard.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "exec/changed.h"
#include "exec/numbers.h"
#include "exec/ops.h"

namespace qb::ops {
namespace {

constexpr int64_t panel = 8;       // rows that are worked on side by side, so that loops over them become vector code
constexpr int64_t any_width = 64;  // columns of a tile where rows stay as they are

template <class Store>
void round_each(const std::vector<double>& tile, int64_t begin, int64_t count, double factor, const Store& store_one) {
  for (int64_t i = 0; i < count; ++i) store_one(i, tile[static_cast<size_t>(begin + i)] * factor);
}

class Tiles {
 public:
  explicit Tiles(const HadamardArgs& a)
      : a_(a),
        tall_(a.op.down.block > 1 ? a.op.down.block : panel),
        wide_(a.op.along.block > 1 ? a.op.along.block : any_width),
        factor_(1 / std::sqrt(static_cast<double>(a.op.along.block) * static_cast<double>(a.op.down.block))),
        line_(static_cast<size_t>(wide_)),
        side_by_side_(static_cast<size_t>(wide_ * panel)),
        tile_(static_cast<size_t>(tall_ * wide_)) {
    if (a.gains == nullptr && a.op.along.block == 1) return;
    columns_.assign(static_cast<size_t>(a.cols), 1);
    if (a.gains != nullptr) to_doubles(a.gains, a.gains_elem, columns_);
    for (int64_t j = 0; a.op.along.block > 1 && j < a.cols; ++j) columns_[static_cast<size_t>(j)] *= random_sign(static_cast<uint64_t>(j % a.op.along.period));
  }

  void run() {
    for (int64_t i = 0; i < a_.rows; i += tall_)
      for (int64_t j = 0; j < a_.cols; j += wide_) {
        rows_ = std::min(tall_, a_.rows - i);
        cols_ = std::min(wide_, a_.cols - j);
        for (int64_t r = 0; r < rows_; r += panel) take(i, j, r, std::min(panel, rows_ - r));
        if (a_.op.down.block > 1) qb::hadamard(tile_.data(), rows_, cols_);
        for (int64_t r = 0; r < rows_; ++r) give(i + r, j, r);
      }
  }

 private:
  const std::byte* source(int64_t i, int64_t j) const { return a_.src + (i * a_.cols + j) * bits(a_.elem) / 8; }

  // One row of the tile, as columns and rows that change their sign or size have it.
  void read(int64_t i, int64_t j) {
    to_doubles(source(i, j), a_.elem, std::span(line_).first(static_cast<size_t>(cols_)));
    const double sign = a_.op.down.block > 1 ? random_sign(static_cast<uint64_t>((a_.first_row + i) % a_.op.down.period)) : 1;
    const double* const columns = columns_.empty() ? nullptr : columns_.data() + j;
    for (int64_t c = 0; c < cols_; ++c) line_[static_cast<size_t>(c)] *= columns == nullptr ? sign : columns[c] * sign;
  }

  // Rows r to r + count of the tile that begins at (i, j), in the basis of columns.
  void take(int64_t i, int64_t j, int64_t r, int64_t count) {
    const bool turns = a_.op.along.block > 1;
    for (int64_t k = 0; k < count; ++k) {
      read(i + r + k, j);
      double* const row = tile_.data() + (r + k) * cols_;
      if (!turns) std::copy_n(line_.data(), cols_, row);
      for (int64_t c = 0; turns && c < cols_; ++c) side_by_side_[static_cast<size_t>(c * count + k)] = line_[static_cast<size_t>(c)];
    }
    if (!turns) return;
    qb::hadamard(side_by_side_.data(), cols_, count);
    for (int64_t k = 0; k < count; ++k)
      for (int64_t c = 0; c < cols_; ++c) tile_[static_cast<size_t>((r + k) * cols_ + c)] = side_by_side_[static_cast<size_t>(c * count + k)];
  }

  void give(int64_t i, int64_t j, int64_t r) const {
    std::byte* const to = a_.out + (i * a_.cols + j) * bits(a_.op.to) / 8;
    if (a_.op.to == Elem::f32)
      round_each(tile_, r * cols_, cols_, factor_, [to](int64_t c, double x) { store<float>(to, c, static_cast<float>(x)); });
    else if (a_.op.to == Elem::bf16)
      round_each(tile_, r * cols_, cols_, factor_, [to](int64_t c, double x) { store<uint16_t>(to, c, encode_bf16(to_odd(x))); });
    else
      round_each(tile_, r * cols_, cols_, factor_, [to](int64_t c, double x) { store<uint16_t>(to, c, encode_f16(to_odd(x))); });
  }

  const HadamardArgs& a_;
  const int64_t tall_, wide_;
  const double factor_;
  int64_t rows_ = 0, cols_ = 0;
  std::vector<double> columns_;  // what each column is multiplied by; empty: nothing
  std::vector<double> line_, side_by_side_, tile_;
};

}  // namespace

void hadamard(const HadamardArgs& a) {
  if (a.rows > 0 && a.cols > 0) Tiles(a).run();
}

}  // namespace qb::ops
