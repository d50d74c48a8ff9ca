#include "bridge/streamed.h"

#include "bridge/runtime.h"

namespace qb {

Result<std::unique_ptr<Streamed>> Streamed::open(const Session& session, const ir::Checkpoint& checkpoint, host::ThreadPool& pool, Context& context,
                                                 const model::Options& options) {
  std::unique_ptr<Streamed> out(new Streamed(session, checkpoint, pool, context, options));
  Result<std::unique_ptr<model::LayerStream>> stream = model::stream(out->loading_);
  if (!stream) return refusal(stream.error(), options.linear.policy);
  out->stream_ = std::move(*stream);
  return out;
}

}  // namespace qb
