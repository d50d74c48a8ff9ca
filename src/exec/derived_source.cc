#include "exec/derived_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "exec/buffer.h"
#include "exec/compiled.h"

namespace qb {

DerivedSource::DerivedSource(Source& base, FileId file, std::vector<prog::Program> programs, uint64_t bytes, Isa isa, int at_once)
    : base_(base), file_(file), programs_(std::move(programs)), begins_{0}, bytes_(bytes), isa_(isa) {
  if (at_once > 0) free_.emplace(at_once);
  for (const prog::Program& p : programs_) begins_.push_back(begins_.back() + prog::output_bytes(p.outputs[0]));
}

Result<void> DerivedSource::read(std::span<const ReadRequest> requests) {
  std::vector<ReadRequest> stored, made;
  for (const ReadRequest& r : requests) {
    if (r.file != file_)
      stored.push_back(r);
    else if (r.offset > begins_.back() || r.into.size() > begins_.back() - r.offset)
      return Error{Errc::io, fmt::format("{} bytes at {} of tensors that are made lie beyond their end at {}", r.into.size(), r.offset, begins_.back())};
    else if (!r.into.empty())
      made.push_back(r);
  }
  if (!stored.empty()) QB_TRY(base_.read(stored));
  if (made.empty()) return {};
  if (!free_) return make_all(made);
  free_->acquire();
  Result<void> done = make_all(made);
  free_->release();
  return done;
}

Result<void> DerivedSource::make_all(std::vector<ReadRequest>& made) {
  std::sort(made.begin(), made.end(), [](const ReadRequest& a, const ReadRequest& b) { return a.offset < b.offset; });
  for (size_t first = 0; first < made.size();) {
    const auto i = static_cast<size_t>(std::upper_bound(begins_.begin(), begins_.end(), made[first].offset) - begins_.begin()) - 1;
    size_t last = first;
    while (last < made.size() && made[last].offset < begins_[i + 1]) ++last;
    QB_TRY(make(i, std::span(made).subspan(first, last - first)));
    // What goes on in the next tensor stays.
    size_t kept = last;
    for (size_t k = last; k-- > first;) {
      const uint64_t done = begins_[i + 1] - made[k].offset;
      if (made[k].into.size() > done) made[--kept] = {file_, begins_[i + 1], made[k].into.subspan(static_cast<size_t>(done))};
    }
    first = kept;
  }
  return {};
}

Result<void> DerivedSource::make(size_t i, std::span<const ReadRequest> requests) {
  const prog::Program& program = programs_[i];
  QB_ASSIGN(const Compiled c, compile(program));
  const int64_t height = c.block_rows(default_block, bytes_, true);
  if (height == 0) return c.does_not_fit(bytes_, true);
  const uint64_t row = c.slice(0, {0, 1}).bytes, begin = begins_[i], end = begins_[i + 1];
  const auto end_of = [&](const ReadRequest& r) { return std::min(r.offset + r.into.size(), end); };
  Context context;
  context.limits.memory_budget = bytes_;
  context.isa = isa_;
  Buffer outputs, scratch;
  uint64_t done = begin;  // all before it has been given
  for (size_t first = 0; first < requests.size();) {
    if (end_of(requests[first]) <= done) {
      ++first;
      continue;
    }
    const auto wanted = static_cast<int64_t>((std::max(requests[first].offset, done) - begin) / row);
    const RowRange rows{wanted / program.row_multiple * program.row_multiple,
                        std::min(wanted / program.row_multiple * program.row_multiple + height, program.rows)};
    const OutputSlice slice = c.slice(0, rows);
    QB_ASSIGN(std::byte* const data, outputs.at_least(slice.bytes));
    const std::span<std::byte> spans[] = {{data, static_cast<size_t>(slice.bytes)}};
    BlockRun block(c, rows, spans);
    QB_ASSIGN(std::byte* const room, scratch.at_least(block.scratch_bytes()));
    Requests reads(base_);
    QB_TRY(block.request(room, reads));
    QB_TRY(reads.flush());
    QB_TRY(block.compute(base_, context));
    const uint64_t block_begin = begin + slice.offset, block_end = block_begin + slice.bytes;
    for (size_t k = first; k < requests.size() && requests[k].offset < block_end; ++k) {
      const uint64_t a = std::max(requests[k].offset, block_begin), b = std::min(end_of(requests[k]), block_end);
      if (a < b) std::memcpy(requests[k].into.data() + (a - requests[k].offset), data + (a - block_begin), static_cast<size_t>(b - a));
    }
    done = block_end;
  }
  return {};
}

}  // namespace qb
