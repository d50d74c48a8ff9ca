#include "model/batch.h"

#include <fmt/format.h>

#include <algorithm>

namespace qb::model {
namespace {

Error wrong(std::string what) {
  return Error{Errc::invalid_argument, "the batch is malformed: " + std::move(what)};
}

Result<void> check_sequence(const Batch& b, size_t s, const KvCache& cache, int64_t max_positions) {
  const int32_t begin = b.offsets[s], end = b.offsets[s + 1];
  if (begin < 0 || end <= begin || static_cast<size_t>(end) > b.ids.size()) return wrong(fmt::format("sequence {} has the tokens [{}, {})", s, begin, end));
  const int64_t first = b.positions[static_cast<size_t>(begin)], last = first + end - begin - 1;
  if (first < 0 || last >= max_positions) return wrong(fmt::format("sequence {} reaches position {}, the model has {}", s, last, max_positions));
  for (int64_t i = begin; i < end; ++i)
    if (b.positions[static_cast<size_t>(i)] != first + i - begin) return wrong(fmt::format("the positions of sequence {} do not ascend by one", s));
  const int64_t blocks = last / KvCache::block_tokens + 1;
  if (static_cast<int64_t>(b.table[s].size()) < blocks) return wrong(fmt::format("sequence {} needs {} cache blocks and has {}", s, blocks, b.table[s].size()));
  for (const int32_t block : b.table[s].first(static_cast<size_t>(blocks)))
    if (block < 0 || block >= cache.blocks()) return wrong(fmt::format("sequence {} names cache block {}, there are {}", s, block, cache.blocks()));
  return {};
}

}  // namespace

Result<void> check_batch(const Batch& b, const KvCache& cache, int64_t vocab, int64_t max_positions) {
  if (b.offsets.size() != b.table.size() + 1 || b.table.empty()) return wrong(fmt::format("{} offsets for {} block tables", b.offsets.size(), b.table.size()));
  if (b.ids.size() != b.positions.size() || b.ids.size() > INT32_MAX) return wrong(fmt::format("{} ids and {} positions", b.ids.size(), b.positions.size()));
  if (b.offsets.front() != 0 || static_cast<size_t>(b.offsets.back()) != b.ids.size()) return wrong("the offsets do not span the ids");
  if (!b.lengths.empty() && b.lengths.size() != b.table.size()) return wrong(fmt::format("{} lengths for {} sequences", b.lengths.size(), b.table.size()));
  for (size_t s = 0; s < b.table.size(); ++s) QB_TRY(check_sequence(b, s, cache, max_positions));
  for (const int32_t id : b.ids)
    if (id < 0 || id >= vocab) return wrong(fmt::format("token id {} is not in the vocabulary of {}", id, vocab));
  return {};
}

void BatchPass::cut(const Batch& b, int64_t first, int64_t last) {
  begin = first;
  end = last;
  runs.clear();
  sequences.clear();
  wanted.clear();
  const auto after = std::upper_bound(b.offsets.begin(), b.offsets.end(), static_cast<int32_t>(first));
  for (auto s = static_cast<size_t>(after - b.offsets.begin()) - 1; s < b.table.size() && b.offsets[s] < last; ++s) {
    const int64_t from = std::max<int64_t>(b.offsets[s], first), to = std::min<int64_t>(b.offsets[s + 1], last);
    runs.push_back({.table = b.table[s], .first_row = from - first, .first_position = b.positions[static_cast<size_t>(from)], .count = to - from});
    sequences.push_back(static_cast<int32_t>(s));
    if (!b.all_logits && to == b.offsets[s + 1]) wanted.push_back(to - 1 - first);
  }
  if (b.all_logits)
    for (int64_t row = 0; row < last - first; ++row) wanted.push_back(row);
}

int64_t rope_length(const Batch& b, int64_t sequence) {
  const auto s = static_cast<size_t>(sequence);
  const int64_t here = static_cast<int64_t>(b.positions[static_cast<size_t>(b.offsets[s + 1]) - 1]) + 1;
  return b.lengths.empty() ? here : std::max<int64_t>(here, b.lengths[s]);
}

}  // namespace qb::model
