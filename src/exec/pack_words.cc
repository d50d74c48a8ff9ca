// Integer codes as 32-bit words (prog::PackWords).
#include <algorithm>
#include <cstring>

#include "exec/numbers.h"
#include "exec/ops.h"

namespace qb::ops {
namespace {

// Where bits of a code go, for the 32 codes that fill `bits` words: `width` bits of code i, from bit `low` on, to bit `shift` of a word.
struct Piece {
  int code, low, width, word, shift;
};

class Pieces {
 public:
  explicit Pieces(const prog::PackWords& op) {
    for (int i = 0; i < 32; ++i) {
      if (op.planes) {
        int low = 0;
        for (const int plane : {4, 2, 1}) {
          if ((op.bits & plane) == 0) continue;
          add(i, low, plane, low * 32 + i * plane);
          low += plane;
        }
      } else if (op.lanes.count > 1) {
        add(i, 0, op.bits, i / op.lanes.count * 32 + op.lanes.bit[static_cast<size_t>(i % op.lanes.count)]);
      } else {
        const int at = i * op.bits, here = std::min(op.bits, 32 - at % 32);
        add(i, 0, here, at);
        if (here < op.bits) add(i, here, op.bits - here, at + here);  // goes on in the next word
      }
    }
  }
  const Piece* begin() const { return pieces_; }
  const Piece* end() const { return pieces_ + count_; }

 private:
  void add(int code, int low, int width, int bit) { pieces_[count_++] = {code, low, width, bit / 32, bit % 32}; }
  Piece pieces_[96];
  int count_ = 0;
};

}  // namespace

void pack_words(const std::byte* codes, int64_t rows, int64_t cols, const prog::PackWords& op, std::byte* words) {
  const Pieces pieces(op);
  const unsigned bias = 1U << (op.bits - 1), mask = (1U << op.bits) - 1, less = op.less == ir::Less::field ? 1 : 0, ones = UINT32_MAX / mask;
  // A stream has `length` codes `step` apart; `side` streams lie next to each other, and their words with them.
  const int64_t length = op.down ? rows : cols, step = op.down ? cols : 1, side = op.down ? cols : 1, streams = op.down ? 1 : rows;
  const int64_t stream_words = op.down ? (rows + 31) / 32 * op.bits : ir::dense_words(cols, op.bits);
  std::memset(words, 0, static_cast<size_t>(streams * stream_words * side) * 4);
  for (int64_t stream = 0; stream < streams; ++stream) {
    const std::byte* from = codes + stream * cols;
    std::byte* to = words + stream * stream_words * 4;
    for (int64_t first = 0; first < length; first += 32) {
      for (const Piece& p : pieces) {
        if (first + p.code >= length) continue;
        const std::byte* code = from + (first + p.code) * step;
        std::byte* word = to + (first / 32 * op.bits + p.word) * side * 4;
        const unsigned part = (1U << p.width) - 1;
        for (int64_t s = 0; s < side; ++s) {
          const unsigned stored = (static_cast<unsigned>(load<int8_t>(code, s)) + bias - less) & mask;
          store<uint32_t>(word, s, load<uint32_t>(word, s) | (stored >> p.low & part) << p.shift);
        }
      }
    }
  }
  if (op.less != ir::Less::word) return;
  for (int64_t w = 0; w < streams * stream_words * side; ++w) store<uint32_t>(words, w, load<uint32_t>(words, w) - ones);
}

}  // namespace qb::ops
