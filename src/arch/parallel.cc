#include "arch/parallel.h"

#include <fmt/format.h>

#include <algorithm>

namespace qb::arch {
namespace {

std::string_view words(Key what) {
  switch (what) {
    case Key::heads:
      return "attention heads";
    case Key::kv_heads:
      return "KV heads";
    case Key::vocab:
      return "words of the vocabulary";
    case Key::experts:
      return "experts";
    default:
      return "elements of the feed-forward part";
  }
}

// Units that one of `ranks` has; nothing where there is no equal share.
std::optional<Range> units(Key what, int64_t count, int64_t ranks, int64_t rank, Uneven& why) {
  if (what == Key::vocab) {  // engines fill the last one up
    const int64_t each = (count + ranks - 1) / ranks;
    if (each * (ranks - 1) < count) return Range{rank * each, std::min(count, (rank + 1) * each)};
  } else if (what == Key::kv_heads && count < ranks && count > 0 && ranks % count == 0) {
    const int64_t head = rank / (ranks / count);
    return Range{head, head + 1};
  } else if (count % ranks == 0 && count > 0) {
    const int64_t each = count / ranks;
    return Range{rank * each, (rank + 1) * each};
  }
  why = {fmt::format("{} {}", count, words(what))};
  return std::nullopt;
}

}  // namespace

bool is_sound(const Ranks& r) {
  return r.tp >= 1 && r.ep >= 1 && r.count() % std::min(r.tp, r.ep) == 0;
}

std::optional<Share> share_of(const Module& m, Ranks ranks, int64_t rank, Uneven& why) {
  Share share;
  const bool expert = m.expert >= 0 || m.kind == Kind::expert;
  // Among how many ranks the module is cut, and which of them this one is.
  int64_t cut = ranks.tp, place = rank % ranks.tp;
  if (expert && ranks.ep > 1) {
    cut = std::max<int64_t>(ranks.tp / ranks.ep, 1);
    place = rank % cut;
    const int64_t group = rank / cut % ranks.ep;
    const std::optional<Range> mine = units(Key::experts, m.experts, ranks.ep, group, why);
    if (!mine) return std::nullopt;
    if (m.kind == Kind::expert)
      share.experts = *mine;
    else
      share.there = m.expert >= mine->begin && m.expert < mine->end;
  }
  if (m.parallel == Parallel::none || cut == 1) return share;
  int64_t begin = 0;
  for (const Split::Part& part : m.split.parts) {
    if (part.what == Key::none) continue;
    const std::optional<Range> mine = units(part.what, part.count, cut, place, why);
    if (!mine) return std::nullopt;
    share.ranges.push_back({begin + mine->begin * m.split.unit, begin + mine->end * m.split.unit});
    begin += part.count * m.split.unit;
  }
  return share;
}

std::optional<Share> share_of_heads(const Topology& t, bool kv, Ranks ranks, int64_t rank, Uneven& why) {
  Share share;
  if (ranks.tp == 1) return share;
  const std::optional<Range> mine = units(kv ? Key::kv_heads : Key::heads, kv ? t.kv_heads : t.heads, ranks.tp, rank % ranks.tp, why);
  if (!mine) return std::nullopt;
  share.ranges.push_back(*mine);
  return share;
}

namespace {

// With the sizes of the rank's part, without the experts of others.
std::optional<std::vector<Module>> shared(std::vector<Module> modules, Ranks ranks, int64_t rank, Uneven& why) {
  std::vector<Module> kept;
  for (Module& m : modules) {
    const std::optional<Share> share = share_of(m, ranks, rank, why);
    if (!share) return std::nullopt;
    if (!share->there) continue;
    std::optional<std::vector<Module>> parts = shared(std::move(m.parts), ranks, rank, why);
    if (!parts) return std::nullopt;
    m.parts = std::move(*parts);
    if (!share->ranges.empty()) {
      int64_t& size = m.parallel == Parallel::rows ? m.k : m.n;
      size = 0;
      for (const Range& r : share->ranges) size += r.size();
    }
    if (share->experts.size() > 0) m.experts = share->experts.size();
    kept.push_back(std::move(m));
  }
  return kept;
}

}  // namespace

bool take_share(Topology& t, Ranks ranks, int64_t rank, Uneven& why) {
  std::optional<std::vector<Module>> kept = shared(std::move(t.modules), ranks, rank, why);
  if (!kept) return false;
  const std::optional<Share> heads = share_of_heads(t, false, ranks, rank, why), kv = share_of_heads(t, true, ranks, rank, why);
  if (!heads || !kv) return false;
  if (!heads->ranges.empty()) {
    t.heads = heads->ranges.front().size();
    t.kv_heads = kv->ranges.front().size();
  }
  t.modules = std::move(*kept);
  t.ranks = ranks;
  t.rank = rank;
  return true;
}

}  // namespace qb::arch
