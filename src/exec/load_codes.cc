// Packed codes: integers into bytes, four-bit floats into rows of nibbles: any width from two to eight bits, lanes, and streams of words that lie apart
// (ir::View says what these are).
#include <algorithm>
#include <cstring>

#include "exec/load.h"
#include "exec/numbers.h"
#include "prog/typing.h"

namespace qb {
namespace {

// Most files: codes of four bits in offset binary, one behind the other from a whole byte on.
void nibbles(const std::byte* line, int64_t count, std::byte* out) {
  for (int64_t j = 0; j < count / 2; ++j) {
    const unsigned both = std::to_integer<unsigned>(line[j]);
    out[2 * j] = static_cast<std::byte>((both & 15U) - 8U);
    out[2 * j + 1] = static_cast<std::byte>((both >> 4) - 8U);
  }
  if (count % 2 != 0) out[count - 1] = static_cast<std::byte>((std::to_integer<unsigned>(line[count / 2]) & 15U) - 8U);
}

// Up to eight bits at any bit; two bytes are read.
unsigned field(const std::byte* line, int64_t bit, unsigned mask) {
  return (unsigned{ops::load<uint16_t>(line + bit / 8, 0)} >> (bit % 8)) & mask;
}

}  // namespace

Load::Spot Load::spot(size_t axis, int64_t index) const {
  const ir::Lanes& lanes = view_.lanes[axis];
  const int64_t unit = index / lanes.count, lane = lanes.bit[static_cast<size_t>(index % lanes.count)];
  if (view_.words[axis] == 0) return {unit, lane};
  const int64_t bit = unit * view_.stride[axis] + lane;
  return {bit / 32, bit % 32};
}

void Load::plan_codes(int64_t end) {
  dense_ = dense_rows_ = false;
  if (rows_ == 0 || cols_ == 0) return;
  const size_t slow = view_.words[0] != 0 || (view_.words[1] == 0 && pitch(0) >= pitch(1)) ? 0 : 1, fast = 1 - slow;
  along_ = static_cast<int>(fast);
  int64_t begin[] = {begin_, 0}, last[] = {end - 1, cols_ - 1};
  if (view_.planes) {
    const size_t axis = ir::planes_axis(view_);
    begin[axis] = begin[axis] / 32 * 32;
    last[axis] = last[axis] / 32 * 32 + 31;
  }
  // Lanes need not ascend: from the first unit's start to the last one's end.
  int64_t last_unit = last[slow] / view_.lanes[slow].count, reach = prog::last_lane(view_, slow) + width_;
  first_unit_ = begin[slow] / view_.lanes[slow].count;
  if (view_.words[slow] != 0) {
    first_unit_ = first_unit_ * view_.stride[slow] / 32;
    last_unit = (last_unit * view_.stride[slow] + reach - 1) / 32;
    reach = 32;
  }
  lines_ = last_unit - first_unit_ + 1;
  const int64_t units = last[fast] / view_.lanes[fast].count - begin[fast] / view_.lanes[fast].count;
  first_bit_ = view_.offset + begin[fast] / view_.lanes[fast].count * view_.stride[fast];
  line_bits_ = units * view_.stride[fast] + prog::last_lane(view_, fast) + reach;
  // Lines of whole bytes need no room for a start within one, and lie behind each other where they do so in the file: one read.
  line_bytes_ = first_bit_ % 8 == 0 && pitch(slow) % 8 == 0 ? (line_bits_ + 7) / 8 : (line_bits_ + 14) / 8;
  slack_ = 2;
}

Result<void> Load::request_codes(std::byte* staging, Requests& requests) const {
  const size_t slow = along_ == 0 ? 1 : 0;
  for (int64_t l = 0; l < lines_; ++l) {
    const int64_t first = first_bit_ + (first_unit_ + l) * pitch(slow);
    const auto size = static_cast<uint64_t>((first + line_bits_ + 7) / 8 - first / 8);
    QB_TRY(requests.add(file_, offset_ + static_cast<uint64_t>(first / 8), {staging + l * line_bytes_, size}));
  }
  return {};
}

// Of offset binary: minus the bias. Of two's complement: the sign extended.
std::byte Load::code_of(unsigned stored) const {
  const unsigned mask = (1U << width_) - 1, bias = 1U << (width_ - 1);
  if (view_.less == ir::Less::field) stored = (stored + 1) & mask;
  return static_cast<std::byte>(view_.offset_binary ? stored - bias : (stored ^ bias) - bias);
}

// Code i of the planes' axis has in each plane the bits that its place among the 32 of its block says.
void Load::gather_planes(std::byte* rows, const std::byte* staging) const {
  const size_t axis = ir::planes_axis(view_), other = 1 - axis;
  const bool apart = view_.words[axis] != 0;  // a line is a word of the stream; else it is the stream for one index of the other axis
  const int64_t first = axis == 0 ? begin_ : 0, count = axis == 0 ? rows_ : cols_, others = axis == 0 ? cols_ : rows_;
  const int64_t step = axis == 0 ? cols_ : 1, other_step = axis == 0 ? 1 : cols_;  // of the result
  for (int64_t i = 0; i < count; ++i) {
    const int64_t block = (first + i) / 32, lane = (first + i) % 32;
    for (int64_t j = 0; j < others; ++j) {
      unsigned stored = 0;
      int low = 0;
      for (const int plane : {4, 2, 1}) {
        if ((width_ & plane) == 0) continue;
        const int64_t bit = (block * width_ + low) * 32 + lane * plane;
        const std::byte* line = apart ? staging + (bit / 32 - first_unit_) * line_bytes_ : staging + j * line_bytes_;
        const int64_t at = apart ? j * view_.stride[other] + bit % 32 : bit - first / 32 * 32 * width_;
        stored |= field(line, at, (1U << plane) - 1) << low;
        low += plane;
      }
      rows[i * step + j * other_step] = code_of(stored);
    }
  }
}

void Load::gather_codes(std::byte* rows, const std::byte* staging) const {
  if (view_.planes) return gather_planes(rows, staging);
  const auto fast = static_cast<size_t>(along_), slow = 1 - fast;
  const int64_t slow_begin = slow == 0 ? begin_ : 0, slow_count = slow == 0 ? rows_ : cols_;
  const int64_t fast_begin = fast == 0 ? begin_ : 0, fast_count = fast == 0 ? rows_ : cols_;
  const int64_t slow_step = slow == 0 ? cols_ : 1, fast_step = fast == 0 ? cols_ : 1;  // of the result
  const unsigned mask = (1U << width_) - 1, ones = UINT32_MAX / mask;                  // ones: 1 in each field of a word
  if (!integers_) std::memset(rows, 0, bytes());                                       // nibbles are put into place one by one
  const auto put = [&](int64_t at, unsigned stored) {
    if (integers_)
      rows[at] = code_of(stored);
    else
      rows[at / 2] |= static_cast<std::byte>(stored << at % 2 * 4);
  };
  const bool plain = view_.lanes[fast].count == 1;
  for (int64_t s = 0; s < slow_count; ++s) {
    const Spot at = spot(slow, slow_begin + s);
    const int64_t line_number = at.unit - first_unit_, start = (first_bit_ + at.unit * pitch(slow)) % 8 + at.bit;
    const std::byte* line = staging + line_number * line_bytes_;
    int64_t out = s * slow_step;
    const bool split = view_.words[slow] != 0 && at.bit + width_ > 32;  // goes on in the next word
    const int64_t here = 32 - at.bit;
    if (width_ == 4 && view_.offset_binary && view_.less == ir::Less::none && plain && view_.stride[fast] == 4 && fast_step == 1 && view_.words[slow] == 0 &&
        start % 8 == 0) {
      nibbles(line + start / 8, fast_count, rows + out);
      continue;
    }
    for (int64_t f = 0; f < fast_count; ++f, out += fast_step) {
      int64_t along = f * view_.stride[fast];
      if (!plain) {
        const Spot place = spot(fast, fast_begin + f);
        along = (place.unit - fast_begin / view_.lanes[fast].count) * view_.stride[fast] + place.bit;
      }
      unsigned stored = field(line, start + along, mask);
      if (split) stored = (stored & ((1U << here) - 1)) | (field(line + line_bytes_, along, mask) << here & mask);
      if (view_.less == ir::Less::word) {  // lines are whole words
        const int64_t bit = start + along;
        stored = (ops::load<uint32_t>(line + bit / 32 * 4, 0) + ones) >> (bit % 32) & mask;
      }
      put(out, stored);
    }
  }
}

}  // namespace qb
