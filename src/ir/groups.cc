#include "ir/groups.h"

namespace qb::ir {

bool split_groups(Module& m, int32_t columns) {
  if (!m.scheme || m.make || m.k % columns != 0) return false;
  Block& block = m.scheme->weight.block;
  const int32_t times = block.cols / columns;
  for (Stored& s : m.parts) {
    if (s.role != Role::scale) continue;
    Lanes& lanes = s.view.lanes[1];
    if (block.rows != 1 || times < 2 || block.cols % columns != 0 || times > static_cast<int32_t>(lanes.bit.size())) return false;
    if (bits(s.elem) != 8 || lanes != Lanes{} || s.view.piece != 0) return false;
    lanes.count = times;  // all in one place
    s.view.dims[1] = m.k / columns;
    block.cols = columns;
    return true;
  }
  return false;
}

}  // namespace qb::ir
