// A checkpoint that is run layer by layer (model::LayerStream), with everything that the stream refers to.
#pragma once

#include <memory>

#include "bridge/session.h"
#include "host/arena.h"
#include "host/threads.h"
#include "model/model.h"

namespace qb {

class Streamed {
 public:
  // The session, the checkpoint (settled; its weights may change between two loads of a layer), the pool and the context outlive it. Errors: bad_input, what
  // cannot be run.
  static Result<std::unique_ptr<Streamed>> open(const Session& session, const ir::Checkpoint& checkpoint, host::ThreadPool& pool, Context& context,
                                                const model::Options& options);
  Streamed(const Streamed&) = delete;
  Streamed& operator=(const Streamed&) = delete;

  model::LayerStream& model() { return *stream_; }

 private:
  Streamed(const Session& session, const ir::Checkpoint& checkpoint, host::ThreadPool& pool, Context& context, const model::Options& options)
      : loading_{session.package, checkpoint, none_, pool, context, options} {}

  host::Arena none_;
  const model::Loading loading_;
  std::unique_ptr<model::LayerStream> stream_;
};

}  // namespace qb
