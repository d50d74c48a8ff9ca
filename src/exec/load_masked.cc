// Masked matrices: the numbers of sparse rows, put where their bits are (ir::Mask).
#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "base/diagnostics.h"
#include "exec/load.h"

namespace qb {

void Load::plan_masked(const prog::Input& input, int64_t end) {
  const ir::Mask& mask = input.mask;
  Masked m{.tensor = mask.tensor, .file = mask.file, .bits_row = (cols_ + 7) / 8};
  dense_ = dense_rows_ = false;
  const int64_t width = width_ / 8;
  m.bits_at = mask.offset + static_cast<uint64_t>(begin_ * m.bits_row);
  if (mask.starts.empty()) {
    m.numbers_at = offset_ + static_cast<uint64_t>(begin_ * (cols_ / 2) * width);
    m.count = rows_ * (cols_ / 2);
  } else {
    m.starts.assign(mask.starts.begin() + begin_, mask.starts.begin() + end + 1);
    m.numbers_at = offset_ + static_cast<uint64_t>(m.starts.front() * width);
    m.count = m.starts.back() - m.starts.front();
  }
  // Any block of as many rows fits: rows without zeros are the longest.
  lines_ = rows_;
  line_bytes_ = m.bits_row + (mask.starts.empty() ? cols_ / 2 : cols_) * width;
  masked_ = std::move(m);
}

Result<void> Load::request_masked(std::byte* staging, Requests& requests) const {
  const auto bits = static_cast<size_t>(rows_ * masked_->bits_row);
  QB_TRY(requests.add(masked_->file, masked_->bits_at, {staging, bits}));
  return requests.add(file_, masked_->numbers_at, {staging + bits, static_cast<size_t>(masked_->count * (width_ / 8))});
}

namespace {

// The bits of eight columns; those past the last column say nothing.
unsigned eight(const std::byte* bits, int64_t first, int64_t cols) {
  const unsigned all = std::to_integer<unsigned>(bits[first / 8]);
  return cols - first < 8 ? all & ((1U << (cols - first)) - 1) : all;
}

}  // namespace

Result<void> Load::gather_masked(std::byte* rows, const std::byte* staging) const {
  const Masked& m = *masked_;
  const auto width = static_cast<size_t>(width_ / 8);
  const std::byte* numbers = staging + rows_ * m.bits_row;
  std::memset(rows, 0, bytes());
  for (int64_t i = 0; i < rows_; ++i) {
    const std::byte* bits = staging + i * m.bits_row;
    const bool of_four = m.starts.empty();
    int64_t marked = 0;
    bool right = true;
    for (int64_t j = 0; j < cols_; j += 8) {
      const unsigned here = eight(bits, j, cols_);
      marked += std::popcount(here);
      right &= !of_four || (std::popcount(here & 15U) == 2 && (cols_ - j < 8 || std::popcount(here >> 4) == 2));
    }
    const int64_t has = of_four ? cols_ / 2 : m.starts[static_cast<size_t>(i) + 1] - m.starts[static_cast<size_t>(i)];
    if (!right || marked != has)
      return Error{Errc::bad_input, fmt::format("'{}': the bits of row {} do not name {}", escape(m.tensor), begin_ + i,
                                                of_four ? "two of every four columns" : fmt::format("as many columns as it has numbers, {}", has))};
    for (int64_t j = 0; j < cols_; j += 8)
      for (unsigned here = eight(bits, j, cols_); here != 0; here &= here - 1, numbers += width)
        std::memcpy(rows + static_cast<size_t>(i * cols_ + j + std::countr_zero(here)) * width, numbers, width);
  }
  return {};
}

}  // namespace qb
