#include "pass/leave_out.h"

namespace qb::pass {

bool leave_out_calibration(ir::Checkpoint& c) {
  size_t left_out = 0;
  for (ir::Module& m : c.modules) left_out += std::erase_if(m.parts, [](const ir::Stored& s) { return s.role == ir::Role::calibration; });
  return left_out > 0;
}

}  // namespace qb::pass
