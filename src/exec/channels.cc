#include "exec/channels.h"

#include <algorithm>
#include <array>

namespace qb {
namespace {

constexpr int64_t most_recent = 255;  // rows that a byte can count

// The stored patterns at the ends of the range. Symmetric integers leave out the least of all, so the one above it counts too.
std::array<uint8_t, 3> tops_of(const ChannelGrid& g) {
  switch (g.code) {
    case Elem::e4m3:
      return {0x7E, 0x7E, 0x7E};
    case Elem::e5m2:
      return {0x7B, 0x7B, 0x7B};
    case Elem::e2m1:
      return {7, 7, 7};
    default:
      break;
  }
  const int half = 1 << (bits(g.code) - 1);
  const auto stored = [&](int x) { return static_cast<uint8_t>((g.offset_binary ? x + half : x) & ((1 << g.width) - 1)); };
  return {stored(half - 1), stored(-half), stored(1 - half)};
}

uint8_t mask_of(const ChannelGrid& g) {
  if (is_integer_code(g.code)) return g.width == 4 ? 0x0F : 0xFF;
  return g.width == 4 ? 7 : 0x7F;
}

bool simple(const ir::Stored& s) {
  const ir::View& v = s.view;
  return s.mask.tensor.empty() && v.parts.empty() && v.piece == 0 && !v.planes && v.repeat == std::array<ir::View::Repeat, 2>{} && v.offset == 0;
}

// Whether the codes along an axis fill the bits that they lie in.
bool full(const ir::View& v, size_t axis, int64_t width) {
  return v.stride[axis] == v.lanes[axis].count * width;
}

}  // namespace

std::optional<ChannelGrid> channel_grid(const ir::Stored& code, const ir::Module& m) {
  const ir::View& v = code.view;
  const int64_t width = code.elem == Elem::i8 ? 8 : bits(code.elem), n = v.dims[0], k = v.dims[1];
  const Elem meant = m.scheme ? m.scheme->weight.code : code.elem;
  const bool known = is_integer_code(meant) ? bits(meant) >= 4 : meant == code.elem && (meant == Elem::e4m3 || meant == Elem::e5m2 || meant == Elem::e2m1);
  if (!known || !simple(code) || (width != 4 && width != 8) || n < 1 || k < 1) return std::nullopt;
  ChannelGrid g{.code = meant, .width = static_cast<int>(width), .offset_binary = v.offset_binary};
  const auto fits = [&]() -> std::optional<ChannelGrid> {
    if (g.rows < 1 || g.row_bytes < 1 || g.row_bytes % g.column_bytes != 0 || static_cast<uint64_t>(g.rows * g.row_bytes) != code.bytes) return std::nullopt;
    return g;
  };
  const bool plain_rows = v.lanes[0].count == 1 && v.words[0] == 0;
  const bool dense_columns = full(v, 1, width) && (v.words[1] == 0 || v.words[1] == 32);
  if (plain_rows && dense_columns && v.stride[0] == k * width && v.stride[0] % 8 == 0) {
    g.rows = n;
    g.row_bytes = k * width / 8;
    if (m.stack.experts > 0 && m.stack.inputs_first) {
      g.along_rows = false;
      g.split = width == 4;
      g.restart = n / m.stack.experts;
    }
    return fits();
  }
  if (m.stack.experts > 0) return std::nullopt;
  if (width == 4 && v.lanes[0].count == 2 && v.words == std::array<int64_t, 2>{} && v.stride[1] == 8 && v.stride[0] == k * 8) {  // rows in pairs
    g.rows = n / 2;
    g.row_bytes = k;
    g.split = true;
    return fits();
  }
  g.along_rows = false;
  if (plain_rows && v.stride[0] == 32 && full(v, 1, width) && v.words[1] == n * 32) {  // streams down the columns
    g.rows = k * width / 32;
    g.row_bytes = n * 4;
    g.column_bytes = 4;
    return fits();
  }
  if (width == 4 && v.lanes[0].count == 8 && v.stride[0] == 32 && v.lanes[1].count == 1 && v.words == std::array<int64_t, 2>{} && v.stride[1] == n * 4) {
    g.rows = k;
    g.row_bytes = n / 2;
    g.split = true;
    g.lanes = v.lanes[0];
    return fits();
  }
  return std::nullopt;
}

void Channels::Seen::resize(size_t n) {
  first.assign(n, 0);
  most.assign(n, 0);
  recent.assign(n, 0);
  tops.assign(n, 0);
}

uint64_t Channels::memory(const ChannelGrid& g) {
  return g.along_rows ? 0 : static_cast<uint64_t>(g.row_bytes) * 7 * (g.width == 4 ? 2 : 1);
}

Channels::Channels(const ChannelGrid& grid) : g_(grid), integer_(is_integer_code(grid.code)), mask_(mask_of(grid)), fields_(grid.width == 4 ? 2 : 1) {
  const std::array<uint8_t, 3> tops = tops_of(grid);
  std::copy(tops.begin(), tops.end(), top_);
  for (int f = 0; f < fields_; ++f) seen_[f].resize(grid.along_rows ? 1 : static_cast<size_t>(grid.row_bytes));
}

void Channels::add(std::span<const std::byte> piece) {
  const auto* p = reinterpret_cast<const uint8_t*>(piece.data());
  size_t left = piece.size();
  while (left > 0) {
    const size_t n = std::min(left, static_cast<size_t>(g_.row_bytes) - at_);
    g_.along_rows ? add_row(p, n) : add_columns(p, at_, n);
    p += n;
    left -= n;
    at_ += n;
    if (at_ < static_cast<size_t>(g_.row_bytes)) return;
    at_ = 0;
    ++row_;
    if (g_.along_rows) {
      finish_row();
      continue;
    }
    ++rows_of_columns_;
    if (++rows_since_flush_ == most_recent) flush();
    if (row_ == g_.rows || rows_of_columns_ == g_.restart) finish_columns();
  }
}

// A part of one row, in lanes that the compiler turns into vectors.
void Channels::add_row(const uint8_t* p, size_t n) {
  constexpr size_t lanes = 32;
  for (int f = 0; f < fields_; ++f) {
    Seen& s = seen_[f];
    const int shift = 4 * f;
    const uint8_t mask = mask_, a = top_[0], b = top_[1], c = top_[2];
    if (at_ == 0 && integer_) s.first[0] = static_cast<uint8_t>((p[0] >> shift) & mask);
    const uint8_t first = s.first[0];
    size_t i = 0;
    uint8_t most = s.most[0];
    uint64_t tops = 0;
    while (n - i >= lanes) {
      uint8_t m[lanes] = {}, t[lanes] = {};
      const size_t end = i + std::min<size_t>((n - i) / lanes, 255) * lanes;
      for (; i < end; i += lanes)
        for (size_t l = 0; l < lanes; ++l) {
          const auto x = static_cast<uint8_t>((p[i + l] >> shift) & mask);
          m[l] = std::max(m[l], static_cast<uint8_t>(x ^ first));
          t[l] = static_cast<uint8_t>(t[l] + ((x == a) | (x == b) | (x == c)));
        }
      for (size_t l = 0; l < lanes; ++l) {
        most = std::max(most, m[l]);
        tops += t[l];
      }
    }
    for (; i < n; ++i) {
      const auto x = static_cast<uint8_t>((p[i] >> shift) & mask);
      most = std::max(most, static_cast<uint8_t>(x ^ first));
      tops += (x == a) | (x == b) | (x == c);
    }
    s.most[0] = most;
    s.tops[0] += static_cast<uint32_t>(tops);
  }
}

void Channels::add_columns(const uint8_t* p, size_t at, size_t n) {
  for (int f = 0; f < fields_; ++f) {
    Seen& s = seen_[f];
    const int shift = 4 * f;
    const uint8_t mask = mask_, a = top_[0], b = top_[1], c = top_[2];
    uint8_t *first = s.first.data() + at, *most = s.most.data() + at, *recent = s.recent.data() + at;
    if (rows_of_columns_ == 0 && integer_)
      for (size_t i = 0; i < n; ++i) first[i] = static_cast<uint8_t>((p[i] >> shift) & mask);
    for (size_t i = 0; i < n; ++i) {
      const auto x = static_cast<uint8_t>((p[i] >> shift) & mask);
      most[i] = std::max(most[i], static_cast<uint8_t>(x ^ first[i]));
      recent[i] = static_cast<uint8_t>(recent[i] + ((x == a) | (x == b) | (x == c)));
    }
  }
}

void Channels::flush() {
  rows_since_flush_ = 0;
  for (int f = 0; f < fields_; ++f) {
    Seen& s = seen_[f];
    for (size_t i = 0; i < s.tops.size(); ++i) s.tops[i] += s.recent[i];
    std::fill(s.recent.begin(), s.recent.end(), uint8_t{0});
  }
}

void Channels::note(int64_t channel, uint64_t codes, bool constant, uint64_t tops) {
  ++counts_.channels;
  if (constant && counts_.dead++ == 0) counts_.first_dead = channel;
  if (2 * tops > codes && counts_.saturated++ == 0) counts_.first_saturated = channel;
}

void Channels::finish_row() {
  const auto bytes = static_cast<uint64_t>(g_.row_bytes);
  if (!integer_)
    for (int f = 0; f < fields_; ++f) counts_.largest = std::max<unsigned>(counts_.largest, seen_[f].most[0]);
  if (g_.split) {
    for (int f = 0; f < fields_; ++f) note(2 * (row_ - 1) + f, bytes, seen_[f].most[0] == 0, seen_[f].tops[0]);
  } else {
    bool constant = true;
    uint64_t tops = 0;
    for (int f = 0; f < fields_; ++f) {
      constant &= seen_[f].most[0] == 0 && seen_[f].first[0] == seen_[0].first[0];
      tops += seen_[f].tops[0];
    }
    note(row_ - 1, bytes * static_cast<uint64_t>(fields_), constant, tops);
  }
  for (int f = 0; f < fields_; ++f) {
    seen_[f].first[0] = seen_[f].most[0] = 0;
    seen_[f].tops[0] = 0;
  }
}

void Channels::finish_columns() {
  flush();
  const auto width = static_cast<size_t>(g_.column_bytes), bytes = static_cast<size_t>(g_.row_bytes);
  const auto rows = static_cast<uint64_t>(rows_of_columns_);
  const int64_t per_stack = g_.row_bytes / g_.column_bytes * (g_.split ? fields_ : 1);
  for (size_t at = 0; at < bytes; at += width) {
    const auto column = static_cast<int64_t>(at / width);
    bool constant = true;
    uint64_t tops = 0;
    for (int f = 0; f < fields_; ++f) {
      const Seen& s = seen_[f];
      if (g_.split) {
        int64_t channel = 2 * column + f;
        if (g_.lanes.count > 1) {
          const auto bit = static_cast<uint8_t>(column % 4 * 8 + 4 * f);
          const auto lane = std::find(g_.lanes.bit.begin(), g_.lanes.bit.begin() + g_.lanes.count, bit) - g_.lanes.bit.begin();
          channel = column / 4 * g_.lanes.count + lane;
        }
        note(stack_ * per_stack + channel, rows, s.most[at] == 0, s.tops[at]);
        continue;
      }
      for (size_t b = at; b < at + width; ++b) {
        constant &= s.most[b] == 0 && s.first[b] == seen_[0].first[at];
        tops += s.tops[b];
      }
    }
    if (!g_.split) note(stack_ * per_stack + column, rows * width * static_cast<uint64_t>(fields_), constant, tops);
  }
  if (!integer_)
    for (int f = 0; f < fields_; ++f) counts_.largest = std::max<unsigned>(counts_.largest, *std::max_element(seen_[f].most.begin(), seen_[f].most.end()));
  for (int f = 0; f < fields_; ++f) seen_[f].resize(bytes);
  rows_of_columns_ = 0;
  ++stack_;
}

}  // namespace qb
