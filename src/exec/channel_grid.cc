#include "exec/channels.h"

namespace qb {
namespace {

bool simple(const ir::Stored& s) {
  const ir::View& v = s.view;
  return v.parts.empty() && v.piece == 0 && !v.planes && v.repeat == std::array<ir::View::Repeat, 2>{} && v.offset == 0;
}

// Whether the codes along an axis fill the bits that they lie in.
bool full(const ir::View& v, size_t axis, int64_t width) {
  return v.stride[axis] == v.lanes[axis].count * width;
}

}  // namespace

std::optional<ChannelGrid> channel_grid(const ir::Stored& code, const ir::Module& m) {
  const ir::View& v = code.view;
  const int64_t width = code.elem == Elem::i8 ? 8 : bits(code.elem), n = v.dims[0], k = v.dims[1];
  const Elem meant = m.scheme ? m.scheme->weight.code : code.elem;
  const bool known = is_integer_code(meant) || (meant == code.elem && (meant == Elem::e4m3 || meant == Elem::e5m2 || meant == Elem::e2m1));
  if (!known || !simple(code) || 8 % width != 0 || n < 1 || k < 1) return std::nullopt;
  ChannelGrid g{.code = meant, .width = static_cast<int>(width), .offset_binary = v.offset_binary};
  const auto fits = [&]() -> std::optional<ChannelGrid> {
    if (g.rows < 1 || g.row_bytes < 1 || g.row_bytes % g.column_bytes != 0 || static_cast<uint64_t>(g.rows * g.row_bytes) != code.bytes) return std::nullopt;
    return g;
  };
  if (!code.mask.tensor.empty()) {
    g.rows = n;
    g.row_bytes = k / 2;
    g.sparse = true;
    g.starts = code.mask.starts;
    if (width != 8) return std::nullopt;
    if (g.starts.empty()) return fits();
    const bool whole = g.starts.size() == static_cast<size_t>(n) + 1 && static_cast<uint64_t>(g.starts.back()) == code.bytes;
    return whole ? std::optional(g) : std::nullopt;
  }
  const bool plain_rows = v.lanes[0].count == 1 && v.words[0] == 0;
  const bool dense_columns = full(v, 1, width) && (v.words[1] == 0 || v.words[1] == 32);
  if (plain_rows && dense_columns && v.stride[0] == k * width && v.stride[0] % 8 == 0) {
    g.rows = n;
    g.row_bytes = k * width / 8;
    if (m.stack.experts > 0 && m.stack.inputs_first) {
      g.along_rows = false;
      g.split = width < 8;
      g.restart = n / m.stack.experts;
    }
    return fits();
  }
  if (m.stack.experts > 0) return std::nullopt;
  if (width == 4 && v.lanes[0].count == 2 && v.words == std::array<int64_t, 2>{} && v.stride[1] == 8 && v.stride[0] == k * 8) {  // rows in pairs
    g.rows = n / 2;
    g.row_bytes = k;
    g.split = true;
    return fits();
  }
  g.along_rows = false;
  if (plain_rows && v.stride[0] == 32 && full(v, 1, width) && v.words[1] == n * 32) {  // streams down the columns
    g.rows = k * width / 32;
    g.row_bytes = n * 4;
    g.column_bytes = 4;
    return fits();
  }
  if (width == 4 && v.lanes[0].count == 8 && v.stride[0] == 32 && v.lanes[1].count == 1 && v.words == std::array<int64_t, 2>{} && v.stride[1] == n * 4) {
    g.rows = k;
    g.row_bytes = n / 2;
    g.split = true;
    g.lanes = v.lanes[0];
    return fits();
  }
  return std::nullopt;
}

std::optional<ChannelGrid> gathered_grid(const ir::Stored& code, const ir::Module& m) {
  const ir::View& v = code.view;
  const Elem meant = m.scheme ? m.scheme->weight.code : code.elem;
  const bool outputs_are_rows = m.stack.experts == 0 || !m.stack.inputs_first;
  if (!is_integer_code(code.elem) || !is_integer_code(meant) || !code.mask.tensor.empty() || !outputs_are_rows || v.dims[0] < 1 || v.dims[1] < 1)
    return std::nullopt;
  return ChannelGrid{.code = meant, .rows = v.dims[0], .row_bytes = v.dims[1], .gathered = true};
}

}  // namespace qb
