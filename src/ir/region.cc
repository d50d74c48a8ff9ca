#include "ir/region.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "ir/stack.h"

namespace qb::ir {
namespace {

int64_t experts_of(const Module& m) {
  return m.stack.experts == 0 ? 1 : m.stack.experts;
}
int64_t rows_of(const Module& m) {
  return m.n / experts_of(m);
}

// Elements of an axis that share 32-bit words, or bytes, and are not parted.
int64_t unit_of(const Stored& s, size_t axis) {
  const View& v = s.view;
  const int width = bits(s.elem);
  if (v.planes && axis == planes_axis(v)) return 32;
  if (v.lanes[axis].count > 1) return v.lanes[axis].count;
  if (v.words[axis] != 0 || (s.container == Elem::i32 && is_integer_code(s.elem) && v.stride[axis] == width)) return 32 / std::gcd(32, width);
  return width < 8 && v.stride[axis] == width ? 8 / std::gcd(8, width) : 1;
}

// Of a view that consists of others.
std::optional<View> some_of_parts(const View& v, size_t axis, Range r) {
  View out{.dims = v.dims};
  out.along = v.along;
  out.dims[axis] = r.size();
  int64_t at = 0;
  for (const View& part : v.parts) {
    const Range here = axis == v.along ? Range{std::clamp(r.begin - at, int64_t{0}, part.dims[axis]), std::clamp(r.end - at, int64_t{0}, part.dims[axis])} : r;
    at += part.dims[axis];
    if (axis == v.along && here.size() == 0) continue;
    std::optional<View> one = some(part, axis, here);
    if (!one) return std::nullopt;
    out.parts.push_back(std::move(*one));
  }
  if (out.parts.size() == 1) return View(std::move(out.parts.front()));
  return out;
}

}  // namespace

std::optional<View> some(View v, size_t axis, Range r) {
  const int64_t all = v.dims[axis];
  if (r.begin < 0 || r.end > all || r.begin > r.end) return std::nullopt;
  if (r == Range{0, all}) return v;
  if (!v.parts.empty()) return some_of_parts(v, axis, r);
  v.dims[axis] = r.size();
  int64_t skip = r.begin;
  if (View::Repeat& repeat = v.repeat[axis]; repeat.times > 1) {
    skip = (r.begin + repeat.phase) / repeat.times;
    repeat.phase = (r.begin + repeat.phase) % repeat.times;
  }
  if (axis == 0 && v.piece != 0) {
    if (skip % v.piece != 0) return std::nullopt;
    v.offset += skip / v.piece * v.next_piece;
    if (r.size() <= v.piece) v.piece = v.next_piece = 0;
    return v;
  }
  if (v.planes && axis == planes_axis(v) && (skip % 32 != 0 || r.size() % 32 != 0)) return std::nullopt;
  if (skip % v.lanes[axis].count != 0) return std::nullopt;
  const int64_t bits = skip / v.lanes[axis].count * v.stride[axis];
  if (v.words[axis] != 0 && bits % 32 != 0) return std::nullopt;
  v.offset += v.words[axis] != 0 ? bits / 32 * v.words[axis] : bits;
  return v;
}

namespace {

// Ranges of an axis, one behind the other.
std::optional<View> some(const View& v, size_t axis, const std::vector<Range>& ranges) {
  if (ranges.size() == 1) return some(v, axis, ranges.front());
  View all{.dims = v.dims};
  all.dims[axis] = 0;
  all.along = static_cast<uint8_t>(axis);
  for (const Range& r : ranges) {
    const std::optional<View> one = some(v, axis, r);
    if (!one || (!one->parts.empty() && one->along != axis)) return std::nullopt;
    all.dims[axis] += r.size();
    if (one->parts.empty())
      all.parts.push_back(*one);
    else
      all.parts.insert(all.parts.end(), one->parts.begin(), one->parts.end());
  }
  return all;
}

// Numbers of a grid that covers `per` elements each (0: all), for these ranges of elements.
std::vector<Range> in_grid(const std::vector<Range>& elements, int64_t per) {
  if (per == 0) return {{0, 1}};
  std::vector<Range> out;
  for (const Range& r : elements) out.push_back({r.begin / per, (r.end + per - 1) / per});
  return out;
}

// The ranges of one expert's rows for each expert of the range, in rows of the stack; what follows on is one range.
std::vector<Range> in_stack(const std::vector<Range>& rows, Range experts, int64_t each) {
  std::vector<Range> out;
  for (int64_t e = experts.begin; e < experts.end; ++e)
    for (const Range& r : rows) {
      const Range here{e * each + r.begin, e * each + r.end};
      if (!out.empty() && out.back().end == here.begin)
        out.back().end = here.end;
      else
        out.push_back(here);
    }
  return out;
}

// Ranges begin on a block, and end on one where another is behind them.
bool fits_blocks(const std::vector<Range>& ranges, int64_t per) {
  for (const Range& r : ranges)
    if (per != 0 && (r.begin % per != 0 || (&r != &ranges.back() && r.size() % per != 0))) return false;
  return true;
}

// Of stacked experts: all rows of one have the same scale. `stored` are the blocks of the matrix as it is stored.
bool one_scale_each(const Module& m, Block stored) {
  return m.stack.experts != 0 && stored.rows == rows_of(m);
}

class Cutter {
 public:
  Cutter(const Module& m, const Region& g, Block block) : m_(m), g_(g), block_(block) {
    if (m.scheme)
      own_ = stored_type(m).block;
    else
      own_ = block_ = {1, 1};
    const bool turned = m.stack.inputs_first;
    outputs_ = turned ? std::vector<Range>{g.cols} : g.rows;
    inputs_ = turned ? g.rows : std::vector<Range>{g.cols};
  }

  std::optional<Module> run() {
    Module out = m_;
    out.n = g_.experts.size() * std::accumulate(g_.rows.begin(), g_.rows.end(), int64_t{0}, [](int64_t sum, const Range& r) { return sum + r.size(); });
    out.k = g_.cols.size();
    if (m_.stack.experts != 0) out.stack.experts = g_.experts.size();
    if ((!one_scale_each(m_, own_) && !fits_blocks(g_.rows, block_.rows)) || !fits_blocks({g_.cols}, block_.cols)) return std::nullopt;
    if (m_.scheme) out.scheme->weight.block = scheme_block();
    for (Stored& s : out.parts) {
      const View before = s.view;
      const bool joined = !s.joined.empty();
      if (!cut(s)) return std::nullopt;
      if (s.view == before || joined) continue;
      if (!s.mask.tensor.empty() || !s.by.empty()) return std::nullopt;
      s.deviation.clear();  // what a note says of shapes is about the whole
      s.origin.clear();
      s.shape = shape_of(out, s);
      if (s.view.parts.empty() && s.view.offset % 8 == 0) {  // the rest of the tensor is none of its business
        s.offset += static_cast<uint64_t>(s.view.offset) / 8;
        s.bytes -= static_cast<uint64_t>(s.view.offset) / 8;
        s.view.offset = 0;
      }
    }
    return out;
  }

 private:
  // As the scheme says it of one expert as a linear.
  Block scheme_block() const {
    const Block own = m_.scheme->weight.block;
    if (own == Block{0, 0}) return own;
    if (!m_.stack.inputs_first) return {own.rows == 0 ? 0 : block_.rows, own.cols == 0 ? 0 : block_.cols};
    return {own.rows == 0 ? 0 : block_.cols, own.cols == 0 ? 0 : block_.rows};
  }

  bool cut(Stored& s) const {
    switch (s.role) {
      case Role::code:
        return take(s, g_.rows, {g_.cols}, rows_of(m_));
      case Role::scale:
      case Role::zero:
        return grid(s);
      case Role::bias:
        if (m_.stack.experts == 0) return take(s, g_.rows, {{0, 1}}, m_.n);
        return take(s, {{0, 1}}, outputs_, 1);
      case Role::prescale:
        return s.view.dims[0] == 1 ? take(s, {{0, 1}}, inputs_, 1) : take(s, inputs_, {{0, 1}}, m_.k);
      case Role::lowrank_a:
        return take(s, {{0, s.view.dims[0]}}, inputs_, s.view.dims[0]);
      case Role::lowrank_b:
        return take(s, outputs_, {{0, s.view.dims[1]}}, s.view.dims[0]);
      case Role::order:
        return inputs_ == std::vector<Range>{{0, m_.k}};
      default:
        return true;
    }
  }

  // Rows of one expert's part, of which each expert has `each`.
  bool take(Stored& s, const std::vector<Range>& rows, const std::vector<Range>& cols, int64_t each) const {
    const bool stacked = m_.stack.experts != 0;
    if (!s.joined.empty()) return !stacked && cols == std::vector<Range>{{0, s.view.dims[1]}} && take_joined(s, rows);
    std::optional<View> v = some(s.view, 0, stacked ? in_stack(rows, g_.experts, each) : rows);
    if (v) v = some(*v, 1, cols);
    if (v) s.view = *v;
    return v.has_value();
  }

  // One of the matrices that it consists of, or all.
  static bool take_joined(Stored& s, const std::vector<Range>& rows) {
    if (rows == std::vector<Range>{{0, s.view.dims[0]}}) return true;
    if (s.join != Join{} || rows.size() != 1) return false;
    int64_t at = 0;
    for (const Stored& part : s.joined) {
      if (rows.front() == Range{at, at + part.view.dims[0]}) {
        s = Stored(part);
        return true;
      }
      at += part.view.dims[0];
    }
    return false;
  }

  // Scales and zero points; blocks that are cut have theirs in both halves.
  bool grid(Stored& s) const {
    View& v = s.view;
    const bool shared = m_.stack.experts > 1 && v.dims[0] == 1;  // by all experts
    if (shared) return true;
    const int64_t rows = rows_of(m_), cols = m_.k;
    const bool per_expert = one_scale_each(m_, own_);
    const int64_t own_rows = per_expert ? 0 : own_.rows, new_rows = per_expert ? 0 : block_.rows;
    const auto spread = [&](size_t axis, int64_t own, int64_t now, int64_t size) {
      if (own == now || own == 0) return true;
      if (v.repeat[axis].times != 1 || v.piece != 0 || m_.stack.experts > 1 || !s.joined.empty()) return false;
      v.repeat[axis].times = own / now;
      v.dims[axis] = (size + now - 1) / now;
      return true;
    };
    if (!spread(0, own_rows, new_rows, rows) || !spread(1, own_.cols, block_.cols, cols)) return false;
    const int64_t each = v.dims[0] / experts_of(m_);
    return take(s, in_grid(g_.rows, new_rows), in_grid({g_.cols}, block_.cols), each);
  }

  // Of plain tensors; packed ones and grids are written anew.
  static std::vector<int64_t> shape_of(const Module& out, const Stored& s) {
    if (s.role == Role::bias) return s.view.dims[1] == 1 ? std::vector{s.view.dims[0]} : std::vector{s.view.dims[0], s.view.dims[1]};
    if (s.role != Role::code || out.scheme) return {};
    if (out.stack.experts == 0) return {out.n, out.k};
    return {out.stack.experts, out.n / out.stack.experts, out.k};
  }

  const Module& m_;
  const Region& g_;
  Block block_, own_;  // of the matrix as it is stored
  std::vector<Range> outputs_, inputs_;
};

}  // namespace

Region all_of(const Module& m) {
  return {.experts = {0, experts_of(m)}, .rows = {{0, rows_of(m)}}, .cols = {0, m.k}};
}

Grain grain_of(const Module& m, int axis) {
  Grain g;
  const auto also = [&g](int64_t whole, int64_t exact, std::string by) {
    if (whole != 0 && g.whole != 0 && g.whole % whole == 0 && (exact == 0 || g.exact % exact == 0)) return;
    g.by += (g.by.empty() ? "" : ", ") + std::move(by);
    g.whole = whole == 0 || g.whole == 0 ? 0 : std::lcm(g.whole, whole);
    g.exact = exact == 0 || g.exact == 0 ? 0 : std::lcm(g.exact, exact);
  };
  const auto a = static_cast<size_t>(axis);
  const bool along_inputs = (axis == 1) != m.stack.inputs_first;
  if (m.scheme) {
    const QuantType type = stored_type(m);
    const Block b = type.block;
    const int64_t size = axis == 0 ? b.rows : b.cols;
    const bool per_expert = axis == 0 && one_scale_each(m, b);
    const bool repeats = type.scale == ScaleValues::any && m.stack.experts == 0;
    if (const auto& input = m.scheme->input; input && axis == 1 && !m.stack.inputs_first && input->type.block.cols > 1)
      also(input->type.block.cols, input->type.block.cols, fmt::format("activation groups of {}", input->type.block.cols));
    if (size > 1 && !per_expert)
      also(size, repeats ? 1 : size, b.rows > 1 && b.cols > 1 ? fmt::format("blocks of {}x{}", b.rows, b.cols) : fmt::format("groups of {}", size));
    if (along_inputs && m.scheme->features.actorder) also(0, 0, "the order of groups (activation order)");
  }
  for (const Transform& t : m.transforms)
    if (along_inputs != t.of_outputs)
      also(t.matrix.view.dims[0], t.matrix.view.dims[0], fmt::format("blocks of {} that a transform takes together", t.matrix.view.dims[0]));
  for (const Stored& s : m.parts) {
    if (!s.mask.tensor.empty()) also(0, 0, "numbers of a sparse matrix");
    if (!s.by.empty()) also(0, 0, "factors that a pass has put in");
    if (s.role != Role::code && s.role != Role::zero) continue;
    const int64_t unit = unit_of(s, a);
    if (unit == 1) continue;
    // Of zero points a unit holds those of so many rows, or blocks.
    const int64_t per = s.role == Role::code ? 1 : axis == 0 ? std::max(stored_type(m).block.rows, 1) : std::max(stored_type(m).block.cols, 1);
    also(unit * per, unit * per,
         fmt::format("{} with {} to a {}", s.role == Role::code ? "codes" : "zero points", unit, unit * bits(s.elem) > 8 ? "word" : "byte"));
  }
  return g;
}

std::optional<Module> region_of(const Module& m, const Region& region, Block block) {
  return Cutter(m, region, block).run();
}

std::optional<Stored> rows_of(const Stored& s, Range rows) {
  std::optional<View> v = s.joined.empty() && s.mask.tensor.empty() && s.by.empty() ? some(s.view, 0, rows) : std::nullopt;
  if (!v) return std::nullopt;
  Stored out = s;
  out.view = std::move(*v);
  return out;
}

Block common_block(const Module& m, const std::vector<Region>& regions) {
  if (!m.scheme) return {1, 1};
  Block b = stored_type(m).block;
  const auto fit = [](int32_t& size, Range r, int64_t all) {
    if (size <= 1) return;
    size = static_cast<int32_t>(std::gcd(int64_t{size}, r.begin));
    if (r.end != all) size = static_cast<int32_t>(std::gcd(int64_t{size}, r.end));
  };
  const bool per_expert = one_scale_each(m, b);
  for (const Region& g : regions) {
    for (const Range& r : g.rows)
      if (!per_expert) fit(b.rows, r, rows_of(m));
    fit(b.cols, g.cols, m.k);
  }
  return b;
}

}  // namespace qb::ir
