// transform_config of compressed-tensors, module by module.
//
// Source of truth: the library's files and its transform factories. Matrices of transforms that weights hold already are not stored. One that is applied at run
// time is stored under the first module that it applies to, as <module>.<group>_<location>.weight, and all modules of the group with inputs (outputs) of that
// size share it.
#pragma once

#include <set>

#include "dialect/compressed_tensors_config.h"
#include "dialect/reading.h"

namespace qb {

class CtTransforms {
 public:
  CtTransforms(Reading& reading, const CtConfig& config) : r_(reading), config_(config) {}

  // Gives a module whose weight has been read its transforms. algorithm-unsupported, once for each group, where its matrix is not to be found.
  void read(ir::Module&);
  // The head that is the embedding table has no module of its own to be transformed: such are refused.
  void refuse_tied_head();

 private:
  void add(ir::Module&, const CtTransform&);
  const TensorInfo* matrix_of(const ir::Module&, const CtTransform&, int64_t block) const;
  void refuse(const ir::Module&, const CtTransform&, std::string what);

  Reading& r_;
  const CtConfig& config_;
  std::set<std::string> refused_;  // groups
};

}  // namespace qb
