#include "exec/channels.h"

#include <algorithm>

#include "recipe/loops.h"

namespace qb {
namespace {

constexpr int64_t most_recent = 255;  // rows that a byte can count

// The ends of the range. Symmetric integers leave out the least of all, so the one above it counts too: as stored, both follow the largest one.
Channels::Look look_for(const ChannelGrid& g) {
  switch (g.code) {
    case Elem::e4m3:
      return {0x7F, 0x7F, 0x7E, 0};
    case Elem::e5m2:
      return {0x7F, 0x7F, 0x7B, 0};
    case Elem::e2m1:
      return {0x77, 7, 7, 0};
    default:
      break;
  }
  const int codes = 1 << bits(g.code), largest = codes / 2 - 1;
  return {0xFF, static_cast<uint8_t>(codes - 1), static_cast<uint8_t>(g.offset_binary ? codes - 1 : largest), 2};
}

QB_INLINE uint8_t at_end(uint8_t x, int shift, Channels::Look c) {
  return static_cast<uint8_t>(((x >> shift) - c.low) & c.field) <= c.more ? 1 : 0;
}

struct RowSeen {
  uint8_t first, differ;
  uint64_t ends[2];
};

// A part of one row, in lanes that compilers turn into vectors. Fields: codes of a byte whose ends are counted.
template <int Fields>
struct RowLoop {
  static QB_INLINE void run(const uint8_t* p, size_t n, const Channels::Look* look, RowSeen* seen) {
    constexpr size_t lanes = 64;
    constexpr int shift = Fields == 2 ? 4 : 0, several = Fields == 0 ? 1 : Fields;
    const Channels::Look c = *look;
    const uint8_t first = seen->first;
    uint8_t differ[lanes] = {}, rest = 0;
    uint64_t ends[several] = {};
    size_t i = 0;
    while (n - i >= lanes) {
      uint8_t t[several][lanes] = {};
      const size_t stop = i + std::min<size_t>((n - i) / lanes, most_recent) * lanes;
      for (; i < stop; i += lanes)
        for (size_t l = 0; l < lanes; ++l) {
          const uint8_t x = p[i + l];
          differ[l] = static_cast<uint8_t>(differ[l] | (x ^ first));
          for (int f = 0; f < Fields; ++f) t[f][l] = static_cast<uint8_t>(t[f][l] + at_end(x, f * shift, c));
        }
      for (int f = 0; f < Fields; ++f)
        for (size_t l = 0; l < lanes; ++l) ends[f] += t[f][l];
    }
    for (size_t l = 0; l < lanes; ++l) rest = static_cast<uint8_t>(rest | differ[l]);
    for (; i < n; ++i) {
      rest = static_cast<uint8_t>(rest | (p[i] ^ first));
      for (int f = 0; f < Fields; ++f) ends[f] += at_end(p[i], f * shift, c);
    }
    seen->differ = static_cast<uint8_t>(seen->differ | (rest & c.compared));
    for (int f = 0; f < Fields; ++f) seen->ends[f] += ends[f];
  }
};

struct ColumnsSeen {
  const uint8_t* first;
  uint8_t *differ, *recent[2];
};

// A part of one row of columns.
template <int Fields>
struct ColumnLoop {
  static QB_INLINE void run(const uint8_t* p, size_t n, const Channels::Look* look, const ColumnsSeen* seen) {
    constexpr int shift = Fields == 2 ? 4 : 0;
    const Channels::Look c = *look;
    const uint8_t* const first = seen->first;
    uint8_t* __restrict const differ = seen->differ;
    for (size_t i = 0; i < n; ++i) differ[i] = static_cast<uint8_t>(differ[i] | ((p[i] ^ first[i]) & c.compared));
    for (int f = 0; f < Fields; ++f) {
      uint8_t* __restrict const recent = seen->recent[f];
      for (size_t i = 0; i < n; ++i) recent[i] = static_cast<uint8_t>(recent[i] + at_end(p[i], f * shift, c));
    }
  }
};

template <template <int> class Loop, class... A>
void run_counting(int fields, Isa isa, A... a) {
  if (fields == 0) return recipe::run_at<Loop<0>>(isa, a...);
  if (fields == 1) return recipe::run_at<Loop<1>>(isa, a...);
  recipe::run_at<Loop<2>>(isa, a...);
}

int counted_of(const ChannelGrid& g) {
  return bits(g.code) > 2 ? 8 / g.width : 0;
}

}  // namespace

void Channels::Seen::reset(size_t n, int counted) {
  first.assign(n, 0);
  differ.assign(n, 0);
  for (int f = 0; f < counted; ++f) {
    recent[static_cast<size_t>(f)].assign(n, 0);
    ends[static_cast<size_t>(f)].assign(n, 0);
  }
}

uint64_t Channels::memory(const ChannelGrid& g) {
  constexpr uint64_t each = sizeof(uint8_t) + sizeof(uint32_t);
  return g.along_rows ? 0 : static_cast<uint64_t>(g.row_bytes) * (2 + each * static_cast<uint64_t>(counted_of(g)));
}

Channels::Channels(const ChannelGrid& grid, Isa isa)
    : g_(grid), isa_(isa), look_(look_for(grid)), from_first_(is_integer_code(grid.code) && !grid.sparse), fields_(8 / grid.width), counted_(counted_of(grid)) {
  seen_.reset(grid.along_rows ? 1 : static_cast<size_t>(grid.row_bytes), counted_);
}

size_t Channels::row_size() const {
  if (g_.starts.empty()) return static_cast<size_t>(g_.row_bytes);
  const auto row = static_cast<size_t>(row_);
  return row < static_cast<size_t>(g_.rows) ? static_cast<size_t>(g_.starts[row + 1] - g_.starts[row]) : 0;
}

void Channels::add(std::span<const std::byte> piece) {
  const auto* p = reinterpret_cast<const uint8_t*>(piece.data());
  size_t left = piece.size();
  while (row_ < g_.rows && (left > 0 || row_size() == 0)) {
    const size_t n = std::min(left, row_size() - at_);
    g_.along_rows ? add_row(p, n) : add_columns(p, n);
    p += n;
    left -= n;
    at_ += n;
    if (at_ < row_size()) return;
    g_.along_rows ? finish_row() : flush();
    at_ = 0;
    ++row_;
    if (!g_.along_rows && (row_ == g_.rows || rows_of_columns_ == g_.restart)) finish_columns();
  }
}

uint8_t Channels::alike(uint8_t byte) const {
  uint8_t all = 0;
  const auto lowest = static_cast<uint8_t>(byte & ((1U << g_.width) - 1));
  for (int f = 0; f < fields_; ++f) all = static_cast<uint8_t>(all | lowest << f * g_.width);
  return all;
}

bool Channels::constant(size_t place, int field) const {
  const unsigned all = (1U << g_.width) - 1;
  return (seen_.differ[place] >> field * g_.width & all) == 0;
}

void Channels::add_row(const uint8_t* p, size_t n) {
  if (at_ == 0 && n > 0 && from_first_) seen_.first[0] = g_.split ? p[0] : alike(p[0]);
  RowSeen row{seen_.first[0], seen_.differ[0], {}};
  run_counting<RowLoop>(counted_, isa_, p, n, &look_, &row);
  seen_.differ[0] = row.differ;
  for (size_t f = 0; f < static_cast<size_t>(counted_); ++f) seen_.ends[f][0] += static_cast<uint32_t>(row.ends[f]);
}

void Channels::add_columns(const uint8_t* p, size_t n) {
  if (rows_of_columns_ == 0 && from_first_) std::copy(p, p + n, seen_.first.begin() + static_cast<ptrdiff_t>(at_));
  ColumnsSeen columns{seen_.first.data() + at_, seen_.differ.data() + at_, {}};
  for (size_t f = 0; f < static_cast<size_t>(counted_); ++f) columns.recent[f] = seen_.recent[f].data() + at_;
  run_counting<ColumnLoop>(counted_, isa_, p, n, &look_, &columns);
}

void Channels::note(int64_t channel, uint64_t codes, bool constant, uint64_t ends) {
  ++counts_.channels;
  if (constant && counts_.dead++ == 0) counts_.first_dead = channel;
  if (2 * ends > codes && counts_.saturated++ == 0) counts_.first_saturated = channel;
}

void Channels::finish_row() {
  const uint64_t bytes = row_size();
  const auto ends = [&](int f) { return f < counted_ ? seen_.ends[static_cast<size_t>(f)][0] : 0U; };
  if (g_.split) {
    for (int f = 0; f < fields_; ++f) note(row_ * fields_ + f, bytes, constant(0, f), ends(f));
  } else {
    note(row_, bytes * static_cast<uint64_t>(fields_), seen_.differ[0] == 0, uint64_t{ends(0)} + ends(1));
  }
  seen_.reset(1, counted_);
}

// A row of columns has ended.
void Channels::flush() {
  ++rows_of_columns_;
  if (++rows_since_flush_ < most_recent && row_ + 1 < g_.rows && rows_of_columns_ != g_.restart) return;
  rows_since_flush_ = 0;
  for (size_t f = 0; f < static_cast<size_t>(counted_); ++f) {
    for (size_t i = 0; i < seen_.ends[f].size(); ++i) seen_.ends[f][i] += seen_.recent[f][i];
    std::fill(seen_.recent[f].begin(), seen_.recent[f].end(), uint8_t{0});
  }
}

void Channels::finish_columns() {
  const auto width = static_cast<size_t>(g_.column_bytes), bytes = static_cast<size_t>(g_.row_bytes);
  const auto rows = static_cast<uint64_t>(rows_of_columns_);
  const int64_t per_stack = g_.row_bytes / g_.column_bytes * (g_.split ? fields_ : 1);
  const auto ends = [&](int f, size_t at) { return f < counted_ ? seen_.ends[static_cast<size_t>(f)][at] : 0U; };
  for (size_t at = 0; at < bytes; at += width) {
    const auto column = static_cast<int64_t>(at / width);
    if (g_.split) {
      for (int f = 0; f < fields_; ++f) {
        int64_t channel = column * fields_ + f;
        if (g_.lanes.count > 1) {
          const auto bit = static_cast<uint8_t>(column % 4 * 8 + f * g_.width);
          const auto lane = std::find(g_.lanes.bit.begin(), g_.lanes.bit.begin() + g_.lanes.count, bit) - g_.lanes.bit.begin();
          channel = column / 4 * g_.lanes.count + lane;
        }
        note(stack_ * per_stack + channel, rows, constant(at, f), ends(f, at));
      }
      continue;
    }
    bool same = true;
    uint64_t all_ends = 0;
    for (size_t b = at; b < at + width; ++b) {
      same &= seen_.differ[b] == 0 && seen_.first[b] == alike(seen_.first[at]);
      all_ends += uint64_t{ends(0, b)} + ends(1, b);
    }
    note(stack_ * per_stack + column, rows * width * static_cast<uint64_t>(fields_), same, all_ends);
  }
  seen_.reset(bytes, counted_);
  rows_of_columns_ = 0;
  ++stack_;
}

}  // namespace qb
