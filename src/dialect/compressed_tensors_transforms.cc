#include "dialect/compressed_tensors_transforms.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace qb {
namespace {

bool covers(const std::vector<NameRule>& rules, const ir::Module& m) {
  return std::any_of(rules.begin(), rules.end(), [&](const NameRule& rule) { return rule.match(m.path, m.kind) != NameRule::How::no; });
}

template <class T>
bool applies(const T& transform, const ir::Module& m) {
  return covers(transform.targets, m) && !covers(transform.ignore, m);
}

}  // namespace

void CtTransforms::read(ir::Module& m) {
  for (const CtFusedTransform& f : config_.fused)
    if (applies(f, m)) m.why += fmt::format("; its weight holds transform {}", f.group);
  for (const CtTransform& t : config_.transforms)
    if (applies(t, m)) add(m, t);
}

void CtTransforms::add(ir::Module& m, const CtTransform& t) {
  if (m.kind != arch::Kind::linear) return refuse(m, t, "of a module that is no linear");
  for (const ir::Transform& other : m.transforms)
    if (other.of_outputs == t.of_outputs) return refuse(m, t, fmt::format("of {} that another one transforms too", t.of_outputs ? "outputs" : "inputs"));
  const int64_t side = t.of_outputs ? m.n : m.k, block = t.block != 0 ? t.block : side;
  if (block < 1 || block > 65536 || side % block != 0) return refuse(m, t, fmt::format("in blocks of {} of {} numbers", block, side));
  const TensorInfo* matrix = matrix_of(m, t, block);
  if (matrix == nullptr) return refuse(m, t, fmt::format("whose matrix [{}, {}] is not stored", block, block));
  r_.claim(*matrix);
  // The inverse of a Hadamard matrix is its transpose; of others it is stored.
  m.transforms.push_back({.of_outputs = t.of_outputs,
                          .transposed = t.hadamard && t.inverse,
                          .divisor = t.hadamard ? std::sqrt(static_cast<double>(block)) : 1,
                          .matrix = r_.stored(*matrix, ir::Role::plain, matrix->dtype, block, block)});
  if (m.scheme) m.scheme->features.transform = true;
}

// Its own, or the one that its group shares.
const TensorInfo* CtTransforms::matrix_of(const ir::Module& m, const CtTransform& t, int64_t block) const {
  const std::string word = fmt::format("{}_{}.weight", t.group, t.of_outputs ? "output" : "input"), suffix = "." + word;
  const auto fits = [block](const TensorInfo& i) {
    const bool floats = i.dtype == Elem::f64 || i.dtype == Elem::f32 || i.dtype == Elem::bf16 || i.dtype == Elem::f16;
    return floats && i.shape == std::vector<int64_t>{block, block};
  };
  if (const TensorInfo* own = r_.find(m, word); own != nullptr) return fits(*own) ? own : nullptr;
  const TensorInfo* shared = nullptr;
  for (const TensorInfo& i : r_.context.package.tensors) {
    if (!i.name.ends_with(suffix) || !fits(i)) continue;
    if (shared != nullptr) return nullptr;  // which one is not said
    shared = &i;
  }
  return shared;
}

void CtTransforms::refuse_tied_head() {
  for (const ir::Module& m : r_.out.modules)
    if (m.path == r_.out.topology.head && r_.out.topology.tied_embeddings && r_.tensors_of(m).empty())
      for (const CtTransform& t : config_.transforms)
        if (applies(t, m)) refuse(m, t, "of a head that is the embedding table");
}

void CtTransforms::refuse(const ir::Module& m, const CtTransform& t, std::string what) {
  if (!refused_.insert(t.group).second) return;
  r_.diag.report("algorithm-unsupported", {.file = "config.json", .module = m.path}, fmt::format("transform_config.{}: a transform {}", escape(t.group), what),
                 "a matrix for the inputs or outputs of linears, stored under one of them");
}

}  // namespace qb
