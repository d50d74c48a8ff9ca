#include "model/model.h"

#include <fmt/format.h>

#include "base/diagnostics.h"
#include "exec/execute.h"
#include "model/decoder.h"
#include "pass/settle.h"

namespace qb::model {

Result<KvCache> KvCache::make(Shape shape, Elem elem, int64_t blocks, host::Arena& arena) {
  KvCache c;
  if (elem != Elem::f32 && elem != Elem::bf16 && elem != Elem::e4m3) {
    return Error{Errc::invalid_argument, fmt::format("a KV cache of {} numbers is not supported", info(elem).name)};
  }
  int64_t bytes = block_tokens * 2 * bits(elem) / 8;
  for (const int64_t d : {shape.layers, shape.kv_heads, shape.head_dim, blocks}) {
    if (d <= 0 || __builtin_mul_overflow(bytes, d, &bytes)) return Error{Errc::invalid_argument, "a KV cache of an impossible size"};
  }
  c.shape_ = shape;
  c.elem_ = elem;
  c.blocks_ = blocks;
  QB_ASSIGN(c.bytes_, arena.take(static_cast<size_t>(bytes)));
  return c;
}

namespace {

Result<DecoderBuilder> begin(const Loading& loading) {
  const std::string& name = loading.checkpoint.topology.model_type;
  std::string known;
  for (const Architecture* a : architectures())
    for (const std::string_view f : a->families) {
      if (f == name) return a->begin(loading);
      known += (known.empty() ? "" : ", ") + std::string(f);
    }
  return Error{Errc::invalid_argument, fmt::format("no model runs the family '{}'; known are {}", escape(name), known)};
}

Result<std::unique_ptr<Model>> load_settled(const Loading& loading) {
  QB_ASSIGN(DecoderBuilder builder, begin(loading));
  return builder.finish();
}

}  // namespace

Result<std::unique_ptr<LayerStream>> stream(const Loading& loading) {
  QB_ASSIGN(DecoderBuilder builder, begin(loading));
  return builder.stream();
}

Result<std::unique_ptr<Model>> load(const Loading& loading) {
  if (pass::is_settled(loading.checkpoint)) return load_settled(loading);
  ir::Checkpoint settled = loading.checkpoint;
  StreamSurveyor surveyor(*loading.package.source, loading.context);
  Diagnostics diag;
  QB_TRY(pass::settle(settled, surveyor, diag));
  for (const Problem& p : diag.all())
    if (p.repair != Repair::exact)
      return Error{Errc::bad_input, fmt::format("{} {}: found {}, expected {}", p.code, escape(p.tensor), escape(p.found), escape(p.expected))};
  return load_settled({loading.package, settled, loading.arena, loading.pool, loading.context, loading.options, loading.team});
}

}  // namespace qb::model
