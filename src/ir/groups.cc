#include "ir/groups.h"

#include <optional>
#include <utility>

#include "ir/region.h"

namespace qb::ir {

bool split_groups(Module& m, int32_t columns) {
  if (!m.scheme || m.make || m.k % columns != 0) return false;
  const Block block = m.scheme->weight.block;
  if (block.rows != 1 || block.cols <= columns || block.cols % columns != 0) return false;
  std::optional<Module> split = region_of(m, all_of(m), {block.rows, columns});
  if (split) m = std::move(*split);
  return split.has_value();
}

}  // namespace qb::ir
