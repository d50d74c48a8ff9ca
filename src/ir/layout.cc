#include "ir/layout.h"

namespace qb::ir {

std::string_view to_string(Layout layout) {
  switch (layout) {
    case Layout::rows:
      return "rows";
    case Layout::panel_bf16:
      return "panel_bf16";
    case Layout::panel_plain:
      return "panel_plain";
    case Layout::panel_fp8:
      return "panel_fp8";
    case Layout::panel_fp4:
      return "panel_fp4";
    case Layout::panel_int4:
      return "panel_int4";
    case Layout::panel_int8:
      return "panel_int8";
    case Layout::panel_scale:
      return "panel_scale";
  }
  return "?";
}

int64_t panel_bytes(Layout layout, int64_t k, int bits) {
  const int64_t unit = unit_of(layout), columns = (k + unit - 1) / unit * unit;
  switch (layout) {
    case Layout::rows:
      return (k * bits + 7) / 8;
    case Layout::panel_bf16:
      return columns * 32;
    case Layout::panel_fp8:
    case Layout::panel_int8:
      return columns * 16;
    case Layout::panel_fp4:
    case Layout::panel_int4:
      return columns * 8;
    case Layout::panel_plain:
    case Layout::panel_scale:
      return columns * panel_rows * bits / 8;
  }
  return 0;
}

}  // namespace qb::ir
