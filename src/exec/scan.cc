#include "exec/scan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "exec/patterns.h"
#include "exec/stream.h"
#include "exec/tally.h"
#include "exec/xxh3.h"
#include "host/host.h"
#include "num/codec.h"

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

// What is not finite of a tensor's numbers, and the largest of all.
class Finite {
 public:
  Finite(Elem elem, Isa isa) : elem_(elem), isa_(isa), not_finite_(elem) {}
  void add(const std::byte* data, int64_t first, int64_t count) {
    const uint64_t here = largest_magnitude(data, elem_, count, isa_);
    largest_ = std::max(largest_, here);
    if (is_finite_magnitude(elem_, here)) return;
    for (int64_t i = 0; i < count; ++i)
      if (const double x = value_at(data, elem_, i); !std::isfinite(x)) not_finite_.add(x, first + i, 1);
  }
  void result(int64_t total, ScanResult& r) const {
    r.numbers = not_finite_.result();
    r.numbers.count = total;
    r.largest = largest_;
  }

 private:
  Elem elem_;
  Isa isa_;
  Tally not_finite_;
  uint64_t largest_ = 0;
};

// Channels of codes that are read through their view.
Result<ChannelCounts> count_gathered(const prog::Input& input, const ChannelGrid& grid, uint64_t room, Source& source, Context& context, Buffer& buffer) {
  const Stream stream(input, room);
  if (stream.block_bytes() > room) return ChannelCounts{};
  Channels channels(grid, context.isa);
  for (int64_t b = 0; b < stream.blocks(); ++b) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    QB_ASSIGN(const Stream::Block block, stream.read(b, source, buffer));
    channels.add({block.data, static_cast<size_t>(block.count)});
    host::sample_memory();
  }
  return channels.counts();
}

}  // namespace

Result<ScanResult> scan(const ScanQuestion& q, Source& source, Context& context, Buffer& buffer, const std::function<void(uint64_t)>& done) {
  ScanResult r;
  const int64_t width = std::max(bits(q.elem) / 8, 1);
  const auto total = static_cast<int64_t>(q.bytes) / width;
  const uint64_t room = context.limits.memory_budget / static_cast<uint64_t>(std::max(context.limits.threads, 1)) / 2;
  QB_ASSIGN(std::byte* const data, buffer.at_least(std::min(block_bytes, q.bytes)));
  std::optional<Xxh3> hash;
  std::optional<Numbers> numbers;
  std::optional<Finite> finite;
  std::optional<Channels> channels;
  std::optional<Levels> levels;
  std::optional<CodeTest> codes;
  if (q.checksum) hash.emplace(context.isa);
  if (q.ask == ScanQuestion::Ask::all) numbers.emplace(q.elem, total, nullptr, context.isa);
  if (q.ask == ScanQuestion::Ask::finite) finite.emplace(q.elem, context.isa);
  if (q.channels && !q.gathered && Channels::memory(*q.channels) < room) channels.emplace(*q.channels, context.isa);
  if (q.levels) levels.emplace();
  if (q.codes) codes.emplace();
  for (uint64_t at = 0; at < q.bytes; at += block_bytes) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    const std::span<std::byte> block(data, std::min(block_bytes, q.bytes - at));
    const ReadRequest request{q.file, q.offset + at, block};
    QB_TRY(source.read(std::span(&request, 1)));
    const int64_t first = static_cast<int64_t>(at) / width, count = static_cast<int64_t>(block.size()) / width;
    if (hash) hash->add(block);
    if (numbers) numbers->add(data, first, count);
    if (finite) finite->add(data, first, count);
    if (channels) channels->add(block);
    if (levels) levels->add(data, block.size());
    if (codes) codes->add(data, q.elem, count);
    done(block.size());
  }
  host::sample_memory();  // as much as at any block
  if (hash) r.checksum = xxh3_hex(hash->digest());
  if (numbers) r.numbers = numbers->result();
  if (finite) finite->result(total, r);
  if (channels) r.channels = channels->counts();
  if (levels) r.levels = levels->result();
  if (codes) r.are_codes = codes->result();
  if (q.channels && q.gathered) {
    QB_ASSIGN(r.channels, count_gathered(*q.gathered, *q.channels, room, source, context, buffer));
  }
  return r;
}

}  // namespace qb
