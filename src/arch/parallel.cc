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

// Of `count` things, dealt out to `ranks` in order: the first ranks get one more where they do not come out even.
Range dealt(int64_t count, int64_t ranks, int64_t rank) {
  const int64_t each = count / ranks, more = count % ranks;
  const auto begin = [&](int64_t r) { return r * each + std::min(r, more); };
  return {begin(rank), begin(rank + 1)};
}

// KV heads of a rank: some whole ones, or one that other ranks have too.
Range dealt_kv_heads(int64_t kv_heads, int64_t ranks, int64_t rank) {
  if (kv_heads >= ranks) return dealt(kv_heads, ranks, rank);
  int64_t head = 0;
  while (rank >= dealt(ranks, kv_heads, head).end) ++head;
  return {head, head + 1};
}

// The query heads that share these, or a part of those that share one.
Range dealt_heads(int64_t heads, int64_t kv_heads, int64_t ranks, int64_t rank) {
  const int64_t group = heads / kv_heads;
  const Range kv = dealt_kv_heads(kv_heads, ranks, rank);
  if (kv_heads >= ranks) return {kv.begin * group, kv.end * group};
  const Range sharing = dealt(ranks, kv_heads, kv.begin), part = dealt(group, sharing.size(), rank - sharing.begin);
  return {kv.begin * group + part.begin, kv.begin * group + part.end};
}

constexpr int64_t largest_step = 128;

std::optional<Range> uneven_units(const Split::Part& part, int64_t kv_heads, int64_t ranks, int64_t rank) {
  const auto& [what, count] = part;
  if (what == Key::kv_heads) return count > 0 ? std::optional(dealt_kv_heads(count, ranks, rank)) : std::nullopt;
  if (count < ranks) return std::nullopt;
  if (what == Key::heads) {
    if (count % kv_heads != 0) return std::nullopt;
    const Range mine = dealt_heads(count, kv_heads, ranks, rank);
    return mine.size() > 0 ? std::optional(mine) : std::nullopt;
  }
  if (what == Key::experts) return dealt(count, ranks, rank);
  int64_t step = largest_step;
  while ((count + step - 1) / step < ranks) step /= 2;
  const Range steps = dealt((count + step - 1) / step, ranks, rank);
  return Range{steps.begin * step, std::min(steps.end * step, count)};
}

// Units that one of `ranks` has; nothing where there is no share for it.
std::optional<Range> units(const Split::Part& part, const Sharing& how, int64_t ranks, int64_t rank, Uneven& why) {
  const auto& [what, count] = part;
  if (how.uneven()) {
    if (const std::optional<Range> r = uneven_units(part, how.kv_heads, ranks, rank); r) return r;
  } else if (what == Key::vocab) {  // engines fill the last one up
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

Cut cut_of(const Module& m, Ranks ranks, int64_t rank) {
  const bool expert = m.expert >= 0 || m.kind == Kind::expert;
  const int64_t among = expert && ranks.ep > 1 ? std::max<int64_t>(ranks.tp / ranks.ep, 1) : ranks.tp;
  return m.parallel == Parallel::none ? Cut{} : Cut{among, rank % among};
}

std::optional<Range> experts_of(int64_t experts, const Sharing& how, int64_t rank) {
  Uneven why;
  const Ranks& ranks = how.ranks;
  const int64_t group = rank / std::max<int64_t>(ranks.tp / ranks.ep, 1) % ranks.ep;
  return units({Key::experts, experts}, how, ranks.ep, group, why);
}

std::optional<Share> share_of(const Module& m, const Sharing& how, int64_t rank, Uneven& why) {
  const Ranks& ranks = how.ranks;
  Share share;
  if ((m.expert >= 0 || m.kind == Kind::expert) && ranks.ep > 1) {
    const std::optional<Range> mine = experts_of(m.experts, how, rank);
    if (!mine) {
      why = {fmt::format("{} {}", m.experts, words(Key::experts))};
      return std::nullopt;
    }
    if (m.kind == Kind::expert)
      share.experts = *mine;
    else
      share.there = m.expert >= mine->begin && m.expert < mine->end;
  }
  const Cut cut = cut_of(m, ranks, rank);
  if (cut.ranks == 1) return share;
  int64_t begin = 0;
  for (const Split::Part& part : m.split.parts) {
    if (part.what == Key::none) continue;
    const std::optional<Range> mine = units(part, how, cut.ranks, cut.place, why);
    if (!mine) return std::nullopt;
    share.ranges.push_back({begin + mine->begin * m.split.unit, begin + mine->end * m.split.unit});
    begin += part.count * m.split.unit;
  }
  return share;
}

std::optional<Share> share_of_heads(const Topology& t, bool kv, const Sharing& how, int64_t rank, Uneven& why) {
  const Ranks& ranks = how.ranks;
  Share share;
  if (ranks.tp == 1) return share;
  const Split::Part part = kv ? Split::Part{Key::kv_heads, t.kv_heads} : Split::Part{Key::heads, t.heads};
  const std::optional<Range> mine = units(part, how, ranks.tp, rank % ranks.tp, why);
  if (!mine) return std::nullopt;
  share.ranges.push_back(*mine);
  return share;
}

namespace {

// With the sizes of the rank's part, without the experts of others.
std::optional<std::vector<Module>> shared(std::vector<Module> modules, const Sharing& how, int64_t rank, Uneven& why) {
  std::vector<Module> kept;
  for (Module& m : modules) {
    const std::optional<Share> share = share_of(m, how, rank, why);
    if (!share) return std::nullopt;
    if (!share->there) continue;
    std::optional<std::vector<Module>> parts = shared(std::move(m.parts), how, rank, why);
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

bool take_share(Topology& t, const Sharing& how, int64_t rank, Uneven& why) {
  std::optional<std::vector<Module>> kept = shared(std::move(t.modules), how, rank, why);
  if (!kept) return false;
  const std::optional<Share> heads = share_of_heads(t, false, how, rank, why), kv = share_of_heads(t, true, how, rank, why);
  if (!heads || !kv) return false;
  if (!heads->ranges.empty()) {
    t.heads = heads->ranges.front().size();
    t.kv_heads = kv->ranges.front().size();
  }
  t.modules = std::move(*kept);
  t.ranks = how.ranks;
  t.rank = rank;
  return true;
}

}  // namespace qb::arch
