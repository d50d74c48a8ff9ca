#include "exec/load.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "exec/buffer.h"
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

// What lies in the file, before it is changed.
prog::Input stored_only(prog::Input input) {
  input.times = 1;
  input.by.clear();
  return input;
}

std::vector<prog::Input> parts_of(const prog::Input& input) {
  prog::Input part = stored_only(input);
  std::vector<prog::Input> out;
  for (const ir::View& view : input.view.parts) {
    part.view = view;
    out.push_back(part);
  }
  return out;
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
      dense_(input.joined.empty() && prog::is_dense(input.view, input.elem)),
      dense_rows_((cols_ <= 1 || view_.stride[1] == width_) && view_.offset % 8 == 0 && view_.stride[0] % 8 == 0),
      elem_(input.elem),
      times_(input.times),
      plus_(input.plus) {
  for (const prog::Input& by : input.by) {
    const bool of_rows = by.rows_per == 1;
    by_.push_back({Load(by, of_rows ? begin : 0, of_rows ? end : by.view.dims[0]), by.elem, of_rows});
  }
  packed_ = input.joined.empty() && prog::is_packed(view_, input.elem);
  integers_ = is_integer_code(input.elem);
  if (rows_ == 0 || cols_ == 0) {
    packed_ = false;
  } else if (!input.mask.tensor.empty()) {
    plan_masked(input, end);
  } else if (!input.joined.empty()) {
    join_ = input.join;
    join(input.joined, end);
  } else if (!view_.parts.empty()) {
    join_ = ir::Join{view_.along, false};
    join(parts_of(input), end);
  } else if (prog::is_repeated(view_)) {
    thin(input, end);
  } else if (packed_) {
    plan_codes(end);
  } else if (view_.piece == 0) {
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
  prog::Input part = stored_only(input);
  part.view.piece = 0;
  part.view.dims[0] = piece;
  for (int64_t p = begin_ / piece; p * piece < end; ++p) {
    part.view.offset = view_.offset + p * view_.next_piece;
    pieces_.emplace_back(part, std::max(begin_ - p * piece, int64_t{0}), std::min(end - p * piece, piece));
  }
}

// One load for each part. Of parts below each other a block has some: what most need at once is counted. Parts beside each other, or in turns, are read into
// the staging area and put together from there.
void Load::join(const std::vector<prog::Input>& parts, int64_t end) {
  dense_ = dense_rows_ = false;
  const auto count = static_cast<int64_t>(parts.size());
  std::vector<uint64_t> most;
  uint64_t now = 0;
  int64_t above = 0, least = rows_;
  for (int64_t p = 0; p < count; ++p) {
    const prog::Input& part = parts[static_cast<size_t>(p)];
    const int64_t rows = part.view.dims[0];
    if (staged()) {
      // In turns, row i is row i / count of part i % count.
      const auto first = [&](int64_t row) { return row <= p ? 0 : (row - p + count - 1) / count; };
      const bool down = join_->along == 0;
      pieces_.emplace_back(part, down ? first(begin_) : begin_, down ? first(end) : end);
      const Load& widest = down ? Load(part, 0, std::min(rows, rows_ / count + 1)) : pieces_.back();
      now += aligned(pieces_.back().bytes()) + aligned(pieces_.back().staging());
      most.push_back(aligned(widest.bytes()) + aligned(widest.staging()));
      continue;
    }
    least = std::min(least, std::max<int64_t>(rows, 1));
    most.push_back(aligned(Load(part, 0, std::min(rows, rows_)).staging()));
    if (begin_ < above + rows && end > above) {
      pieces_.emplace_back(part, std::max(begin_ - above, int64_t{0}), std::min(end - above, rows));
      now += aligned(pieces_.back().staging());
    }
    above += rows;
  }
  if (!staged()) {
    std::sort(most.begin(), most.end(), std::greater<>());
    most.resize(std::min(most.size(), static_cast<size_t>(rows_ / least + 2)));
  }
  slack_ = static_cast<int64_t>(std::max(now, std::accumulate(most.begin(), most.end(), uint64_t{0})));
}

Result<void> Load::put_together(std::byte* rows, std::byte* staging) const {
  const auto count = static_cast<int64_t>(pieces_.size());
  int64_t column = 0;
  for (int64_t p = 0; p < count; ++p) {
    const Load& piece = pieces_[static_cast<size_t>(p)];
    std::byte* const own = staging;
    staging += aligned(piece.bytes());
    QB_TRY(piece.gather(own, staging));
    staging += aligned(piece.staging());
    const auto row_of = [&](int64_t i) { return own + static_cast<uint64_t>(i) * piece.row_bytes_; };
    if (join_->along == 0) {
      for (int64_t i = 0; i < piece.rows_; ++i)
        std::memcpy(rows + static_cast<uint64_t>((piece.begin_ + i) * count + p - begin_) * row_bytes_, row_of(i), row_bytes_);
      continue;
    }
    const int64_t width = integers_ ? 8 : width_;
    for (int64_t i = 0; i < rows_; ++i) {
      std::byte* const to = rows + static_cast<uint64_t>(i) * row_bytes_;
      if (!join_->turns) {
        std::memcpy(to + column * width / 8, row_of(i), piece.row_bytes_);
      } else if (width % 8 == 0) {
        for (int64_t j = 0; j < piece.cols_; ++j) std::memcpy(to + (j * count + p) * width / 8, row_of(i) + j * width / 8, static_cast<size_t>(width / 8));
      } else {
        for (int64_t j = 0; j < piece.cols_; ++j) put_bits(to, (j * count + p) * width, width, bits_at(row_of(i), j * width, width));
      }
    }
    column += piece.cols_;
  }
  return {};
}

// The rows and columns that are stored, as one load; they are repeated when they are there.
void Load::thin(const prog::Input& input, int64_t end) {
  dense_ = dense_rows_ = false;
  repeated_ = true;
  prog::Input few = stored_only(input);
  few.view.repeat = {};
  const int64_t first = prog::stored_index(view_, 0, begin_), last = prog::stored_index(view_, 0, end - 1);
  few.view.dims = {prog::stored_index(view_, 0, view_.dims[0] - 1) + 1, prog::stored_index(view_, 1, cols_ - 1) + 1};
  pieces_.emplace_back(few, first, last + 1);
  // As many rows may begin at another phase, and need one stored row more.
  slack_ = static_cast<int64_t>(pieces_.front().bytes() + pieces_.front().staging() + pieces_.front().row_bytes_ + 64);
}

void Load::repeat(std::byte* rows, const std::byte* few) const {
  const Load& stored = pieces_.front();
  const auto size = static_cast<size_t>(integers_ ? 1 : width_ / 8);
  for (int64_t i = 0; i < rows_; ++i) {
    const std::byte* from = few + static_cast<uint64_t>(prog::stored_index(view_, 0, begin_ + i) - stored.begin_) * stored.row_bytes_;
    for (int64_t j = 0; j < cols_; ++j, rows += size) std::memcpy(rows, from + static_cast<size_t>(prog::stored_index(view_, 1, j)) * size, size);
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
  if (repeated_) return pieces_.front().request(staging, staging + pieces_.front().bytes(), requests);
  for (const Load& piece : pieces_) {
    std::byte* const own = staged() ? staging : rows;
    if (staged())
      staging += aligned(piece.bytes());
    else
      rows += piece.bytes();
    QB_TRY(piece.request(own, staging, requests));
    staging += join_ ? aligned(piece.staging()) : piece.staging();
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
  if (repeated_) {
    QB_TRY(pieces_.front().gather(staging, staging + pieces_.front().bytes()));
    repeat(rows, staging);
    return {};
  }
  if (staged()) return put_together(rows, staging);
  if (lines_ == 0 && pieces_.empty()) return {};
  if (masked_) return gather_masked(rows, staging);
  for (const Load& piece : pieces_) {
    QB_TRY(piece.gather(rows, staging));
    rows += piece.bytes();
    staging += join_ ? aligned(piece.staging()) : piece.staging();
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
