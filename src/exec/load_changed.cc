// Inputs that are changed while they are read: each number times what a pass says, rounded once.
#include "exec/buffer.h"
#include "exec/changed.h"
#include "exec/load.h"
#include "exec/numbers.h"

namespace qb {

uint64_t Load::staging() const {
  uint64_t sum = own_staging();
  for (const Factor& f : by_) sum = aligned(sum) + aligned(f.load.bytes()) + f.load.staging();
  return sum;
}

Result<void> Load::request(std::byte* rows, std::byte* staging, Requests& requests) const {
  QB_TRY(request_stored(rows, staging, requests));
  uint64_t at = own_staging();
  for (const Factor& f : by_) {
    at = aligned(at);
    std::byte* const factors = staging + at;
    at += aligned(f.load.bytes());
    QB_TRY(f.load.request(factors, staging + at, requests));
    at += f.load.staging();
  }
  return {};
}

Result<void> Load::gather(std::byte* rows, std::byte* staging) const {
  QB_TRY(gather_stored(rows, staging));
  if (times_ != 1 || !by_.empty()) return change(rows, staging);
  return {};
}

Result<void> Load::change(std::byte* rows, std::byte* staging) const {
  // Of an eight-bit format there are few numbers to be asked about.
  if (width_ == 8 && by_.empty()) {
    std::byte table[256 + 3];  // stores of wider formats stay within
    const ops::Table& numbers = ops::table_of(elem_);
    for (int i = 0; i < 256; ++i) ops::store_rounded(table + i, elem_, 0, (static_cast<double>(numbers[static_cast<size_t>(i)]) + plus_) * times_ - plus_);
    for (int64_t i = 0; i < rows_ * cols_; ++i) rows[i] = table[std::to_integer<unsigned>(rows[i])];
    return {};
  }
  struct Numbers {
    const std::byte* at;
    Elem elem;
    int64_t per_row, per_column;
  };
  std::vector<Numbers> numbers;
  uint64_t at = own_staging();
  for (const Factor& f : by_) {
    at = aligned(at);
    std::byte* const factors = staging + at;
    at += aligned(f.load.bytes());
    QB_TRY(f.load.gather(factors, staging + at));
    at += f.load.staging();
    numbers.push_back({factors, f.elem, f.of_rows ? 1 : 0, f.of_rows ? 0 : 1});
  }
  for (int64_t i = 0; i < rows_; ++i)
    for (int64_t j = 0; j < cols_; ++j) {
      double x = (static_cast<double>(ops::number_at(rows, elem_, i * cols_ + j)) + plus_) * times_;
      for (const Numbers& n : numbers) x *= static_cast<double>(ops::number_at(n.at, n.elem, i * n.per_row + j * n.per_column));
      ops::store_rounded(rows, elem_, i * cols_ + j, x - plus_);
    }
  return {};
}

}  // namespace qb
