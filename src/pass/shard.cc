#include "pass/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "ir/region.h"

namespace qb::pass {
namespace {

using arch::Parallel;
using arch::Range;
using arch::Ranks;
using arch::Sharing;
using ir::Region;

// The rank's part of the matrix as it is stored. Precondition: the share is there.
Region region_for(const ir::Module& m, const arch::Module& t, const arch::Share& share) {
  Region g = ir::all_of(m);
  if (share.experts.size() > 0) g.experts = share.experts;
  if (share.ranges.empty()) return g;
  const bool inputs = t.parallel == Parallel::rows;
  if (inputs == m.stack.inputs_first)
    g.rows = share.ranges;
  else
    g.cols = {share.ranges.front().begin, share.ranges.back().end};
  return g;
}
// Columns are one range.
bool one_range(const ir::Module& m, const arch::Module& t, const arch::Share& share) {
  return share.ranges.size() < 2 || (t.parallel == Parallel::rows) == m.stack.inputs_first;
}

// What ranks have of one module: the regions that differ; nothing where they cannot share it equally.
std::optional<std::vector<Region>> regions_of(const ir::Module& m, const arch::Module& t, const Sharing& how, arch::Uneven& why) {
  std::vector<Region> out;
  for (int64_t rank = 0; rank < how.ranks.count(); ++rank) {
    const std::optional<arch::Share> share = arch::share_of(t, how, rank, why);
    if (!share) return std::nullopt;
    if (!share->there) continue;
    if (!one_range(m, t, *share)) {
      why = {fmt::format("{} matrices beside each other", share->ranges.size())};
      return std::nullopt;
    }
    const Region g = region_for(m, t, *share);
    if (out.empty() || out.back() != g) out.push_back(g);
  }
  return out;
}

// The first bound that is no multiple of `step` (0: any bound within the axis); -1: none.
int64_t bad_bound(const std::vector<Region>& regions, int axis, int64_t size, int64_t step) {
  for (const Region& g : regions)
    for (const Range& r : axis == 0 ? g.rows : std::vector<Range>{g.cols})
      for (const int64_t at : {r.begin, r.end})
        if (at != 0 && at != size && (step == 0 || at % step != 0)) return at;
  return -1;
}

struct Blocked {
  int axis = 0;
  int64_t at = 0, size = 0;
  ir::Grain grain;
  bool exact = false;  // and yet no value changes
};
std::optional<Blocked> blocked(const ir::Module& m, const std::vector<Region>& regions) {
  for (const int axis : {0, 1}) {
    const int64_t size = axis == 0 ? ir::all_of(m).rows.front().end : m.k;
    const ir::Grain grain = ir::grain_of(m, axis);
    const int64_t at = bad_bound(regions, axis, size, grain.whole);
    if (at >= 0) return Blocked{axis, at, size, grain, bad_bound(regions, axis, size, grain.exact) < 0};
  }
  return std::nullopt;
}

std::string joined(const std::vector<int64_t>& numbers) {
  return numbers.empty() ? "none" : fmt::format("{}", fmt::join(numbers, ", "));
}

// Which number of ranks messages are about: of tensor parallelism, unless only experts are shared.
bool is_tensor_parallel(Ranks ranks) {
  return ranks.tp > 1 || ranks.ep == 1;
}

Ranks with(Ranks ranks, int64_t count) {
  (is_tensor_parallel(ranks) ? ranks.tp : ranks.ep) = count;
  return ranks;
}

std::string_view option(Ranks ranks) {
  return is_tensor_parallel(ranks) ? "--tp" : "--ep";
}

class Cuts {
 public:
  Cuts(const ir::Checkpoint& c, const Sharing& how) : c_(c), how_(how), ranks_(how.ranks) {}

  // Numbers of ranks at which the module is cut between blocks.
  std::string legal(const ir::Module& m, const arch::Module& t) const {
    std::vector<int64_t> sizes;
    const int64_t most = is_tensor_parallel(ranks_) ? c_.topology.heads : t.experts;
    for (int64_t n = 1; n <= most; ++n) {
      const Ranks ranks = with(ranks_, n);
      arch::Uneven why;
      if (!arch::is_sound(ranks)) continue;
      if (const auto regions = regions_of(m, t, {ranks, how_.kv_heads}, why); regions && !blocked(m, *regions)) sizes.push_back(n);
    }
    return joined(sizes);
  }

  // Problems of one module alike to others; true when it may be cut where blocks may be made smaller.
  bool judge(const ir::Module& m, size_t alike, Diagnostics& diag) const {
    const arch::Module& t = c_.topology.modules[static_cast<size_t>(m.topology)];
    const ir::Stored* code = m.part(ir::Role::code);
    const Place place{.tensor = code == nullptr ? std::string_view() : std::string_view(code->tensor), .module = m.path};
    const std::string others = alike > 1 ? fmt::format(" (and {} more modules like it)", alike - 1) : "";
    arch::Uneven why;
    const std::optional<std::vector<Region>> regions = regions_of(m, t, how_, why);
    if (!regions) {
      diag.report(
          "share-uneven", place, fmt::format("{} for {} ranks{}", why.what, ranks_.count(), others),
          fmt::format("a number of ranks {}: {} {}", how_.uneven() ? "of which each gets some" : "that shares them equally", option(ranks_), legal(m, t)));
      return false;
    }
    const std::optional<Blocked> b = blocked(m, *regions);
    if (!b) return true;
    const std::string way =
        b->exact ? "; or scales that are repeated on both sides of the cut, which is exact where the engine takes smaller blocks (convert --tp)" : "";
    const std::string step = b->grain.whole == 0 ? "no cut along this axis" : fmt::format("cuts at multiples of {}", b->grain.whole);
    diag.report("cut-through-block", place,
                fmt::format("{} ranks cut {} {} at {}, through {}{}", ranks_.count(), b->size, b->axis == 0 ? "rows" : "columns", b->at, b->grain.by, others),
                fmt::format("{}: {} {}{}", step, option(ranks_), legal(m, t), way));
    return b->exact;
  }

  // One of each kind: of the modules whose size, scheme and share are alike, the first.
  bool judge_all(Diagnostics& diag) const {
    if (c_.topology.family == nullptr) {
      diag.report("family-unknown", {.file = "config.json"}, fmt::format("model_type {}", escape(c_.topology.model_type)),
                  "a known family: which matrices are cut how is not known")
          .severity = Severity::error;
      return false;
    }
    using Kind = std::tuple<int64_t, int64_t, int64_t, Parallel, bool, std::string>;
    std::map<Kind, std::pair<const ir::Module*, size_t>> kinds;
    std::vector<const std::pair<const ir::Module*, size_t>*> order;
    for (const ir::Module& m : c_.modules) {
      if (m.topology < 0 || m.part(ir::Role::code) == nullptr) continue;
      const arch::Module& t = c_.topology.modules[static_cast<size_t>(m.topology)];
      const Kind kind{m.n, m.k, m.stack.experts, t.parallel, t.expert >= 0, m.scheme ? ir::to_string(*m.scheme) : std::string()};
      const auto [at, fresh] = kinds.try_emplace(kind, &m, 0);
      ++at->second.second;
      if (fresh) order.push_back(&at->second);
    }
    bool possible = true;
    for (const auto* kind : order) possible &= judge(*kind->first, kind->second, diag);
    for (const bool kv : {false, true}) {
      arch::Uneven why;
      if (arch::share_of_heads(c_.topology, kv, how_, 0, why)) continue;
      possible = false;
      if (diag.ok())
        diag.report("share-uneven", {.file = "config.json"}, fmt::format("{} for {} ranks", why.what, ranks_.tp), "a number of ranks that divides them");
    }
    return possible;
  }

 private:
  const ir::Checkpoint& c_;
  Sharing how_;
  Ranks ranks_;
};

// What an attention module has for each head, or each element of each KV head.
bool cut_heads(ir::Module& m, const arch::Topology& t, const Sharing& how, int64_t rank) {
  for (ir::Stored& s : m.parts) {
    const int64_t count = s.view.dims[0] * s.view.dims[1];
    const bool kv = s.role != ir::Role::plain;
    const int64_t heads = kv ? t.kv_heads : t.heads;
    if (count <= 1 || heads == 0 || count % heads != 0) continue;
    arch::Uneven why;
    const std::optional<arch::Share> share = arch::share_of_heads(t, kv, how, rank, why);
    if (!share) return false;
    if (share->ranges.empty()) continue;
    const int64_t each = count / heads;
    const Range r{share->ranges.front().begin * each, share->ranges.front().end * each};
    const size_t axis = s.view.dims[0] == 1 ? 1 : 0;
    s.view.offset += r.begin * s.view.stride[axis];
    s.view.dims[axis] = r.size();
    for (int64_t& d : s.shape)
      if (d == count || d == heads) {
        d = d == count ? r.size() : share->ranges.front().size();
        break;
      }
    s.deviation.clear();
    s.origin.clear();
  }
  return true;
}

}  // namespace

void check_cuts(const ir::Checkpoint& c, Ranks ranks, Diagnostics& diag) {
  Cuts(c, ranks).judge_all(diag);
}

bool shard(ir::Checkpoint& c, const Sharing& how, int64_t rank, std::vector<SmallerBlocks>& changes, Diagnostics& diag) {
  if (how.ranks.count() == 1) return true;
  Diagnostics found;
  if (c.topology.ranks.count() > 1) {
    diag.report("share-uneven", {.file = "config.json"}, fmt::format("one rank's part of {}", c.topology.ranks.count()), "a whole checkpoint");
    return false;
  }
  const bool possible = Cuts(c, how).judge_all(found);
  for (Problem p : found.all()) {
    if (possible) p.severity = Severity::warning;
    diag.add(std::move(p));
  }
  if (!possible) return false;
  std::map<std::string, SmallerBlocks> smaller;
  std::vector<ir::Module> kept;
  std::vector<int> place(c.topology.modules.size(), -1);
  int next = 0;
  for (size_t i = 0; i < c.topology.modules.size(); ++i) {
    arch::Uneven why;
    const std::optional<arch::Share> share = arch::share_of(c.topology.modules[i], how, rank, why);
    if (share && share->there) place[i] = next++;
  }
  for (ir::Module& m : c.modules) {
    const arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
    arch::Uneven why;
    const std::optional<arch::Share> share = arch::share_of(t, how, rank, why);
    if (!share || !share->there) continue;
    if (m.kind == arch::Kind::attention && !cut_heads(m, c.topology, how, rank)) return false;
    if (!share->whole() && m.part(ir::Role::code) != nullptr) {
      const std::optional<std::vector<Region>> all = regions_of(m, t, how, why);
      std::optional<ir::Module> mine = ir::region_of(m, region_for(m, t, *share), ir::common_block(m, *all));
      if (!mine) {
        diag.report("cut-through-block", {.module = m.path}, "numbers that cannot be taken apart", "a whole matrix");
        return false;
      }
      if (mine->scheme != m.scheme) {
        SmallerBlocks& change = smaller[ir::to_string(*m.scheme) + " " + ir::to_string(*mine->scheme)];
        change.from = *m.scheme;
        change.to = *mine->scheme;
        change.modules.push_back(m.path);
      }
      m = std::move(*mine);
    }
    m.topology = place[static_cast<size_t>(m.topology)];
    kept.push_back(std::move(m));
  }
  for (auto& [key, change] : smaller) changes.push_back(std::move(change));
  c.modules = std::move(kept);
  arch::Uneven why;
  return arch::take_share(c.topology, how, rank, why);
}

}  // namespace qb::pass
