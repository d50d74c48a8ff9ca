// Several processes that do one thing: what each of them finds wrong, they say with one voice.
#pragma once

#include <functional>
#include <memory>

#include "arch/parallel.h"
#include "base/diagnostics.h"
#include "exec/context.h"
#include "host/communicator.h"
#include "ir/checkpoint.h"
#include "model/model.h"

namespace qb {

// The same result on every rank: that of the caller where all have succeeded, else the error of the first rank that has one, which names the rank where the
// ranks do not all say the same. Collective; without a world the result itself.
Result<void> agree(host::Communicator* world, const Result<void>& mine);
template <class T>
Result<T> agree(host::Communicator* world, Result<T> mine) {
  const Result<void> all = agree(world, mine ? Result<void>() : Result<void>(mine.error()));
  return all ? std::move(mine) : Result<T>(all.error());
}

// How work is shared out, where it is.
struct Together {
  host::Communicator* world = nullptr;  // null: one process does all of it
  // Ends all ranks with an error that this one alone has, while the others are at work and cannot be told; does not return.
  std::function<void(const Error&)> end;

  int rank() const { return world == nullptr ? 0 : world->rank(); }
  int size() const { return world == nullptr ? 1 : world->size(); }
  // The result, or the end.
  template <class T>
  Result<T> or_end(Result<T> mine) const {
    if (!mine && world != nullptr) end(mine.error());
    return mine;
  }
};

// Every rank gets the problems that the ranks have added to `diag` behind the first `common`, in the order of the ranks. Collective.
void pool_problems(host::Communicator* world, size_t common, Diagnostics& diag);

// Whether ranks can compute alike: they have the same instruction sets, and there are as many as the job needs. Collective.
Result<void> check_world(host::Communicator* world, arch::Ranks ranks);

// The ranks of one model.
class RankedModel {
 public:
  // Collective: the groups of ranks that cut the same matrices.
  RankedModel(host::Communicator& world, arch::Ranks ranks);
  // Leaves in the checkpoint what this rank has. Where a cut goes through blocks these become smaller, which changes no value. Errors: bad_input, with what
  // cannot be cut.
  Result<void> take_part(ir::Checkpoint& checkpoint, Context& context, Source& source);
  const model::Team& team() const { return team_; }

 private:
  host::Communicator& world_;
  arch::Ranks ranks_;
  std::unique_ptr<host::Communicator> tensor_, expert_, spread_;
  model::Team team_;
};

}  // namespace qb
