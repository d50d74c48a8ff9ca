// Which part of a module each rank has when several run one model: arithmetic on a family's rows, before any byte or format is known.
//
// Tensor parallelism (tp) cuts linears along the axis that the family names: by heads, by elements of the feed-forward part, by words of the vocabulary. Fewer
// KV heads than ranks are repeated. Expert parallelism (ep) gives each rank whole experts; with both, experts are spread over ep groups of ranks and cut among
// the ranks of a group. Shares are equal, as engines ask for; the vocabulary's last share may be shorter. Where a `Sharing` is uneven, any number of ranks
// that is not above the number of heads works: KV heads are dealt out with all query heads that share them, or, where there are fewer than ranks, ranks are
// dealt out to KV heads and share the query heads of theirs; elements and words are dealt out in steps of 128, which is a multiple of all blocks, or of less
// where there are too few of them. Non-goals: blocks and words that a cut goes through (ir/region.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arch/family.h"

namespace qb::arch {

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

bool is_sound(const Ranks&);

// How ranks share a model: equally, as engines ask for; or unevenly, which needs to know how many KV heads the model has, because query heads follow theirs.
struct Sharing {
  Sharing(Ranks all) : ranks(all) {}
  Sharing(Ranks all, int64_t uneven_kv_heads) : ranks(all), kv_heads(uneven_kv_heads) {}
  bool uneven() const { return kv_heads > 0; }

  Ranks ranks;
  int64_t kv_heads = 0;
};

// Among how many ranks a module is cut, if at all; they follow each other, and `place` is this one's among them.
struct Cut {
  int64_t ranks = 1, place = 0;
};
Cut cut_of(const Module&, Ranks, int64_t rank);
// Which of a layer's experts a rank has; nothing where they cannot be shared.
std::optional<Range> experts_of(int64_t experts, const Sharing&, int64_t rank);

// A rank's part of one module.
struct Share {
  bool there = true;          // false: an expert of other ranks
  std::vector<Range> ranges;  // along the axis that the module's `parallel` names, in elements of one expert; empty: all of it
  Range experts;              // of stacked experts; empty: all
  bool whole() const { return there && ranges.empty() && experts.size() == 0; }
};

// What there is that cannot be shared equally.
struct Uneven {
  std::string what;  // "9 attention heads"
};
// Nothing where the module cannot be shared equally; then `why` says it. Precondition: the ranks are sound, and rank < count().
std::optional<Share> share_of(const Module&, const Sharing&, int64_t rank, Uneven& why);

// The same of numbers that an attention module has for each of its query or KV heads.
std::optional<Share> share_of_heads(const Topology&, bool kv, const Sharing&, int64_t rank, Uneven& why);

// The topology of one rank's checkpoint: sizes are those of its shares, experts of other ranks are gone. False where it cannot be shared.
bool take_share(Topology&, const Sharing&, int64_t rank, Uneven& why);

}  // namespace qb::arch
