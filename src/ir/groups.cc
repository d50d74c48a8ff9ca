#include "ir/groups.h"

namespace qb::ir {

bool split_groups(Module& m, int32_t columns) {
  if (!m.scheme || m.make || m.k % columns != 0) return false;
  Block& block = m.scheme->weight.block;
  const int32_t times = block.cols / columns;
  for (Stored& s : m.parts) {
    if (s.role != Role::scale) continue;
    if (block.rows != 1 || times < 2 || block.cols % columns != 0 || bits(s.elem) % 8 != 0) return false;
    if (s.view.repeat[1] != View::Repeat{} || s.view.piece != 0 || !s.view.parts.empty()) return false;
    s.view.repeat[1].times = times;
    s.view.dims[1] = m.k / columns;
    block.cols = columns;
    return true;
  }
  return false;
}

}  // namespace qb::ir
