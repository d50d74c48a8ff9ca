// One pass over the bytes of a tensor: its checksum and what its numbers show, from the same read. For checks that read a whole checkpoint once.
//
// Blocks are as small as a processor's own cache, so that the checksum and the counts find them there.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "exec/buffer.h"
#include "exec/channels.h"
#include "exec/context.h"
#include "prog/program.h"

namespace qb {

struct ScanQuestion {
  std::string_view tensor;  // for messages
  FileId file = 0;
  uint64_t offset = 0, bytes = 0;
  bool checksum = false;
  // Every element is a number of this format, in whatever order they lie. all: as a survey counts them; finite: how many are NaN or infinite, nothing else
  // (of e4m3, e5m2 and floats); none: bytes alone.
  enum class Ask : uint8_t { none, finite, all };
  Ask ask = Ask::none;
  Elem elem = Elem::u8;
  std::optional<ChannelGrid> channels;
  std::optional<prog::Input> gathered;  // the channels' grid is of the codes as this reads them, in a second pass
  bool levels = false;                  // how many different codes there are; of eight-bit codes
  bool codes = false;                   // whether plain numbers could be codes
};

struct ScanResult {
  std::string checksum;        // XXH3, 16 hex digits
  prog::SurveyResult numbers;  // finite: count, nan, inf and first_bad alone
  uint64_t largest = 0;        // finite: the bits of the largest magnitude
  ChannelCounts channels;      // of none where their grid or their rows need more memory than there is
  // Of eight-bit codes: how many different ones, and the bits that any of them has; nothing once there are more than most_levels.
  struct Levels {
    int count = 0;
    uint8_t bits = 0;
  };
  static constexpr int most_levels = 64;
  std::optional<Levels> levels;
  bool are_codes = false;  // all plain numbers are whole and at most 128, or numbers of E4M3, some of 6 or more, and half of them are at least 1/2
};

// `buffer` is for a block, and is one thread's; `done` is told of bytes as they are read. An Error only for the outside world.
Result<ScanResult> scan(const ScanQuestion&, Source&, Context&, Buffer& buffer, const std::function<void(uint64_t)>& done);

}  // namespace qb
