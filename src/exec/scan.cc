#include "exec/scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "exec/buffer.h"
#include "exec/tally.h"
#include "host/host.h"
#include "num/codec.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace qb {
namespace {

constexpr uint64_t block_bytes = 512u << 10;

// Which codes there are; gives up once they are many, which for weights is soon.
class Levels {
 public:
  void add(const std::byte* p, uint64_t count) {
    constexpr uint64_t at_once = 4096;
    for (uint64_t at = 0; at < count && !many_; at += at_once) {
      for (uint64_t i = at; i < std::min(at + at_once, count); ++i) seen_[std::to_integer<uint8_t>(p[i])] = 1;
      many_ = std::accumulate(std::begin(seen_), std::end(seen_), 0) > ScanResult::most_levels;
    }
  }
  std::optional<ScanResult::Levels> result() const {
    if (many_) return std::nullopt;
    ScanResult::Levels l;
    for (unsigned code = 0; code < 256; ++code) {
      if (seen_[code] == 0) continue;
      ++l.count;
      l.bits |= static_cast<uint8_t>(code);
    }
    return l;
  }

 private:
  uint8_t seen_[256] = {};
  bool many_ = false;
};

// Whether plain numbers could be codes; of weights hardly the first is one.
class CodeTest {
 public:
  void add(const std::byte* p, Elem elem, int64_t count) {
    for (int64_t i = 0; i < count && (whole_ || e4m3_); ++i) {
      const double x = std::fabs(value_at(p, elem, i));
      whole_ = whole_ && x <= 128 && x == std::floor(x);
      e4m3_ = e4m3_ && x <= 448 && static_cast<double>(decode_e4m3(encode_e4m3_sat(static_cast<float>(x)))) == x;
      largest_ = std::max(largest_, x);
      if (x >= 0.5) ++halves_;
      ++count_;
    }
  }
  bool result() const { return (whole_ || e4m3_) && largest_ >= 6 && 2 * halves_ >= count_; }

 private:
  bool whole_ = true, e4m3_ = true;
  double largest_ = 0;
  int64_t halves_ = 0, count_ = 0;
};

}  // namespace

Result<ScanResult> scan(const ScanQuestion& q, Source& source, Context& context, const std::function<void(uint64_t)>& done) {
  ScanResult r;
  const int64_t width = std::max(bits(q.elem) / 8, 1);
  const auto total = static_cast<int64_t>(q.bytes) / width;
  const uint64_t budget = context.limits.memory_budget / static_cast<uint64_t>(std::max(context.limits.threads, 1));
  Buffer buffer;
  QB_ASSIGN(std::byte* const data, buffer.at_least(std::min(block_bytes, q.bytes)));
  XXH3_state_t hash;
  XXH3_64bits_reset(&hash);
  const bool all = q.ask == ScanQuestion::Ask::all;
  Numbers numbers(q.elem, all ? total : 0);
  Tally not_finite(q.elem);
  std::optional<Channels> channels;
  if (q.channels && Channels::memory(*q.channels) < budget / 2) channels.emplace(*q.channels);
  Levels levels;
  CodeTest codes;
  for (uint64_t at = 0; at < q.bytes; at += block_bytes) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    const std::span<std::byte> block(data, std::min(block_bytes, q.bytes - at));
    const ReadRequest request{q.file, q.offset + at, block};
    QB_TRY(source.read(std::span(&request, 1)));
    const int64_t first = static_cast<int64_t>(at) / width, count = static_cast<int64_t>(block.size()) / width;
    if (q.checksum) XXH3_64bits_update(&hash, block.data(), block.size());
    if (all) numbers.add(data, first, count);
    if (q.ask == ScanQuestion::Ask::finite && !all_finite(data, q.elem, count))
      for (int64_t i = 0; i < count; ++i)
        if (const double x = value_at(data, q.elem, i); !std::isfinite(x)) not_finite.add(x, first + i, 1);
    if (channels) channels->add(block);
    if (q.levels) levels.add(data, block.size());
    if (q.codes) codes.add(data, q.elem, count);
    done(block.size());
    host::sample_memory();
  }
  if (q.checksum) r.checksum = fmt::format("{:016x}", XXH3_64bits_digest(&hash));
  if (all) {
    r.numbers = numbers.result();
  } else if (q.ask == ScanQuestion::Ask::finite) {
    r.numbers = not_finite.result();
    r.numbers.count = total;
  }
  if (channels) r.channels = channels->counts();
  if (q.levels) r.levels = levels.result();
  if (q.codes) r.are_codes = codes.result();
  return r;
}

}  // namespace qb
