#include "ir/checkpoint.h"

namespace qb::ir {

std::string_view to_string(Role r) {
  switch (r) {
    case Role::code:
      return "code";
    case Role::scale:
      return "scale";
    case Role::global:
      return "global";
    case Role::zero:
      return "zero";
    case Role::input_scale:
      return "input_scale";
    case Role::bias:
      return "bias";
    case Role::k_scale:
      return "k_scale";
    case Role::v_scale:
      return "v_scale";
    case Role::plain:
      return "plain";
  }
  return "";
}

View row_major(int64_t rows, int64_t cols, int bits) {
  return {{rows, cols}, {cols * bits, bits}, 0};
}

}  // namespace qb::ir
