// Which part of a module each rank has when several run one model: arithmetic on a family's rows, before any byte or format is known.
//
// Tensor parallelism (tp) cuts linears along the axis that the family names: by heads, by elements of the feed-forward part, by words of the vocabulary. Fewer
// KV heads than ranks are repeated. Expert parallelism (ep) gives each rank whole experts; with both, experts are spread over ep groups of ranks and cut among
// the ranks of a group. Shares are equal, as engines ask for; the vocabulary's last share may be shorter. Non-goals: blocks and words that a cut goes through
// (ir/region.h).
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
// Nothing where the module cannot be shared equally; then `why` says it. Precondition: is_sound(), and rank < count().
std::optional<Share> share_of(const Module&, Ranks, int64_t rank, Uneven& why);

// The same of numbers that an attention module has for each of its query or KV heads.
std::optional<Share> share_of_heads(const Topology&, bool kv, Ranks, int64_t rank, Uneven& why);

// The topology of one rank's checkpoint: sizes are those of its shares, experts of other ranks are gone. False where it cannot be shared.
bool take_share(Topology&, Ranks, int64_t rank, Uneven& why);

}  // namespace qb::arch
