// What may be chosen when a model's schemes are mixed: groups of modules that get one scheme together, the schemes that each of them can have, and the bytes
// that it has then in the checkpoint that is written.
//
// Goals: a group is what engines hold as one matrix (q, k and v; gate and up) or run as one (all experts of a layer); sizes are those of planned jobs, to the
// byte. Non-goal: what a scheme costs in accuracy (sensitivity.h).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bridge/job.h"

namespace qb {

struct MixScheme {
  std::string name;                  // as it was asked for
  std::optional<ir::Scheme> scheme;  // absent: plain numbers
};

struct MixOption {
  size_t scheme = 0;  // number in MixSpace::schemes
  uint64_t bytes = 0;
};

struct MixGroup {
  std::string match;            // a rule of the configuration language that names these modules and no others
  std::vector<size_t> modules;  // numbers in MixSpace::plain
  int64_t layer = 0;
  uint64_t weights = 0;
  std::vector<MixOption> options;
};

// Of each group the number of its option.
using Mix = std::vector<size_t>;

struct MixSpace {
  ir::Checkpoint plain;  // settled, and taken apart as the job does
  std::vector<MixScheme> schemes;
  std::vector<std::map<size_t, ir::Module>> made;  // for each scheme: modules by number, to be made by its recipe; none of plain numbers
  std::vector<MixGroup> groups;
  std::vector<std::string> untouched;  // linears that are in no group and that no rule leaves out: no scheme fits, or no layer has them
  std::vector<std::string> ignore;
  uint64_t weights = 0;      // of all groups
  uint64_t other_bytes = 0;  // of all tensors that are not theirs
  struct LeftOut {
    std::string scheme, why;
  };
  std::vector<LeftOut> left_out;  // schemes that were not asked for by name, which the target cannot hold or which fit nothing

  // The checkpoint with these schemes.
  ir::Checkpoint with(const Mix&) const;
  void set(ir::Checkpoint&, size_t group, size_t option) const;
  uint64_t bytes(const Mix&) const;  // of the groups
  // In the configuration language: the commonest scheme as the default, the others as overrides.
  std::string config(const Mix&) const;
  // The same scheme for all groups; nothing where it does not fit one.
  std::optional<Mix> uniform(size_t scheme) const;
};

// Names of schemes (the configuration language's; behind a slash a recipe: nvfp4/nvfp4_mse.modelopt; "bf16" or "none" for plain numbers); empty: those that
// engines run, as far as `job.to` holds them. The job's configuration says `ignore` alone. False: `diag` says why: quantized weights (already-quantized), a
// scheme by name that cannot be made, written, or mixed with the others. An Error: an unknown name, fused or stacked forms, the outside world.
Result<bool> mix_space(const Session&, const JobOptions& job, const std::vector<std::string>& names, std::string_view numerics, Context&, MixSpace&,
                       Diagnostics& diag);

}  // namespace qb
