#include "exec/load.h"

#include <algorithm>
#include <cstring>

#include "prog/typing.h"

namespace qb {
namespace {

// `width` bits (below 8, or a multiple of 8) starting at any bit.
uint64_t bits_at(const std::byte* p, int64_t bit, int64_t width) {
  uint64_t value = 0;
  for (int64_t done = 0; done < width;) {
    const int64_t at = bit + done, shift = at % 8, take = std::min<int64_t>(8 - shift, width - done);
    const uint64_t part = (std::to_integer<uint64_t>(p[at / 8]) >> shift) & ((uint64_t{1} << take) - 1);
    value |= part << done;
    done += take;
  }
  return value;
}

void put_bits(std::byte* p, int64_t bit, int64_t width, uint64_t value) {
  for (int64_t done = 0; done < width;) {
    const int64_t at = bit + done, shift = at % 8, take = std::min<int64_t>(8 - shift, width - done);
    const uint64_t mask = ((uint64_t{1} << take) - 1) << shift;
    p[at / 8] = static_cast<std::byte>((std::to_integer<uint64_t>(p[at / 8]) & ~mask) | (((value >> done) << shift) & mask));
    done += take;
  }
}

}  // namespace

Result<void> Requests::add(FileId file, uint64_t offset, std::span<std::byte> into) {
  if (into.empty()) return {};
  if (!pending_.empty()) {
    ReadRequest& last = pending_.back();
    if (last.file == file && last.offset + last.into.size() == offset && last.into.data() + last.into.size() == into.data()) {
      last.into = {last.into.data(), last.into.size() + into.size()};
      return {};
    }
  }
  if (pending_.size() == batch) QB_TRY(flush());
  pending_.push_back({file, offset, into});
  return {};
}

Result<void> Requests::flush() {
  if (pending_.empty()) return {};
  auto r = source_.read(pending_);
  pending_.clear();
  return r;
}

Load::Load(const prog::Input& input, int64_t begin, int64_t end)
    : file_(input.file),
      offset_(input.offset),
      view_(input.view),
      width_(bits(input.elem)),
      begin_(begin),
      rows_(end - begin),
      cols_(input.view.dims[1]),
      row_bytes_(static_cast<uint64_t>(cols_) * static_cast<uint64_t>(is_integer_code(input.elem) ? 8 : width_) / 8),
      dense_(prog::is_dense(input.view, input.elem)),
      dense_rows_((cols_ <= 1 || view_.stride[1] == width_) && view_.offset % 8 == 0 && view_.stride[0] % 8 == 0),
      elem_(input.elem),
      times_(input.times),
      plus_(input.plus) {
  for (const prog::Input& by : input.by) {
    const bool of_rows = by.rows_per == 1;
    by_.push_back({Load(by, of_rows ? begin : 0, of_rows ? end : by.view.dims[0]), by.elem, of_rows});
  }
  packed_ = prog::is_packed(view_, input.elem);
  integers_ = is_integer_code(input.elem);
  if (!input.mask.tensor.empty()) {
    plan_masked(input, end);
  } else if (packed_) {
    plan_codes(end);
  } else if (view_.piece == 0 || rows_ == 0) {
    plan_lines();
  } else {
    cut(input, end);
  }
}

// One load for each piece. A block of as many rows may begin anywhere in a piece, so that its staging area is counted for the worst beginning.
void Load::cut(const prog::Input& input, int64_t end) {
  const int64_t piece = view_.piece;
  plan_lines();  // as if they lay in one
  if (lines_ > 0) slack_ = (rows_ / piece + 2) * 3 * (along_ == 0 ? cols_ : 1);
  prog::Input part = input;
  part.times = 1;
  part.by.clear();
  part.view.piece = 0;
  part.view.dims[0] = piece;
  for (int64_t p = begin_ / piece; p * piece < end; ++p) {
    part.view.offset = view_.offset + p * view_.next_piece;
    pieces_.emplace_back(part, std::max(begin_ - p * piece, int64_t{0}), std::min(end - p * piece, piece));
  }
}

void Load::plan_lines() {
  if (dense_ || dense_rows_ || rows_ == 0 || cols_ == 0) return;
  along_ = view_.stride[0] < view_.stride[1] ? 0 : 1;
  lines_ = along_ == 0 ? cols_ : rows_;
  // A line may start at any bit of its first byte.
  const int64_t count = along_ == 0 ? rows_ : cols_;
  line_bytes_ = (7 + (count - 1) * view_.stride[static_cast<size_t>(along_)] + width_ + 7) / 8;
}

Result<void> Load::request_stored(std::byte* rows, std::byte* staging, Requests& requests) const {
  if (rows_ == 0 || row_bytes_ == 0) return {};
  if (masked_) return request_masked(staging, requests);
  for (const Load& piece : pieces_) {
    QB_TRY(piece.request(rows, staging, requests));
    rows += piece.bytes();
    staging += piece.staging();
  }
  if (!pieces_.empty()) return {};
  if (packed_) return request_codes(staging, requests);
  if (dense_) return requests.add(file_, offset_ + static_cast<uint64_t>(view_.offset) / 8 + static_cast<uint64_t>(begin_) * row_bytes_, {rows, bytes()});
  if (dense_rows_) {
    for (int64_t i = 0; i < rows_; ++i) {
      QB_TRY(requests.add(file_, offset_ + static_cast<uint64_t>(bit_of(i, 0) / 8), {rows + static_cast<uint64_t>(i) * row_bytes_, row_bytes_}));
    }
    return {};
  }
  for (int64_t l = 0; l < lines_; ++l) {
    const int64_t first = along_ == 0 ? bit_of(0, l) : bit_of(l, 0);
    const int64_t last = along_ == 0 ? bit_of(rows_ - 1, l) : bit_of(l, cols_ - 1);
    const uint64_t size = static_cast<uint64_t>((last + width_ + 7) / 8 - first / 8);
    QB_TRY(requests.add(file_, offset_ + static_cast<uint64_t>(first / 8), {staging + l * line_bytes_, size}));
  }
  return {};
}

Result<void> Load::gather_stored(std::byte* rows, std::byte* staging) const {
  if (lines_ == 0) return {};
  if (masked_) return gather_masked(rows, staging);
  for (const Load& piece : pieces_) {
    QB_TRY(piece.gather_stored(rows, staging));
    rows += piece.bytes();
    staging += piece.staging();
  }
  if (!pieces_.empty()) return {};
  if (packed_) {
    gather_codes(rows, staging);
    return {};
  }
  if (width_ % 8 != 0) std::memset(rows, 0, bytes());
  const int64_t step = view_.stride[static_cast<size_t>(along_)];
  for (int64_t l = 0; l < lines_; ++l) {
    const std::byte* line = staging + l * line_bytes_;
    const int64_t start = (along_ == 0 ? bit_of(0, l) : bit_of(l, 0)) % 8;
    const int64_t count = along_ == 0 ? rows_ : cols_;
    // Where element 0 of the line goes, and the distance to the next one, in elements.
    const int64_t to = along_ == 0 ? l : l * cols_, stride = along_ == 0 ? cols_ : 1;
    if (width_ == 16 && start == 0 && step % 8 == 0) {
      for (int64_t i = 0; i < count; ++i) std::memcpy(rows + 2 * (to + i * stride), line + i * step / 8, 2);
    } else if (width_ % 8 == 0 && start == 0 && step % 8 == 0) {
      for (int64_t i = 0; i < count; ++i) std::memcpy(rows + width_ / 8 * (to + i * stride), line + i * step / 8, static_cast<size_t>(width_ / 8));
    } else {
      for (int64_t i = 0; i < count; ++i) put_bits(rows, (to + i * stride) * width_, width_, bits_at(line, start + i * step, width_));
    }
  }
  return {};
}

}  // namespace qb
