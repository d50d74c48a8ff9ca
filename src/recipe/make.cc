#include "recipe/make.h"

#include <utility>

namespace qb::recipe {

prog::Quantize quantize_op(const ir::Module& m, prog::ValueId source, prog::Program& p) {
  prog::Quantize op{.recipe = m.make->recipe, .type = m.scheme->weight, .src = source};
  if (m.make->amax_over.empty()) return op;
  prog::Reduction r{.kind = prog::ReduceKind::absmax};
  for (const ir::Stored& s : m.make->amax_over) r.over.push_back(prog::input_of(s, 1));
  op.reduction = static_cast<int32_t>(p.reductions.size());
  p.reductions.push_back(std::move(r));
  return op;
}

}  // namespace qb::recipe
