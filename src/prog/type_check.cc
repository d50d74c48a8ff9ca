#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <utility>

#include "base/diagnostics.h"
#include "prog/typing.h"

namespace qb::prog {
namespace {

constexpr int64_t largest_bits = int64_t{1} << 62;

Error malformed(std::string what) {
  return Error{Errc::invalid_argument, "malformed program: " + std::move(what)};
}

// rows x cols elements of `width` bits stay below largest_bits.
bool countable(int64_t rows, int64_t cols, int64_t width) {
  int64_t all = 0;
  return rows >= 0 && cols >= 0 && !__builtin_mul_overflow(rows, cols, &all) && !__builtin_mul_overflow(all, width, &all) && all < largest_bits;
}

// How far the last element of an axis starts behind the first; false on overflow. A word is counted to its end.
bool axis_end(const ir::View& v, size_t axis, int64_t width, int64_t& end) {
  if (__builtin_mul_overflow((v.dims[axis] - 1) / v.lanes[axis].count, v.stride[axis], &end) || __builtin_add_overflow(end, last_lane(v, axis), &end))
    return false;
  if (v.words[axis] == 0) return true;
  return !__builtin_add_overflow(end, width - 1, &end) && !__builtin_mul_overflow(end / 32, v.words[axis], &end) &&
         !__builtin_add_overflow(end, 32 - width, &end);
}

// The bit behind the last element; false on overflow. Strides and offset are known not to be negative.
bool view_end(ir::View v, int64_t width, int64_t& end) {
  int64_t down = 0, right = 0, last_piece = 0;
  if (v.dims[0] == 0 || v.dims[1] == 0) return end = 0, true;
  for (size_t axis = 0; axis < 2; ++axis) v.dims[axis] = stored_index(v, axis, v.dims[axis] - 1) + 1;
  if (v.piece > 0 && v.dims[0] > v.piece) {
    if (__builtin_mul_overflow((v.dims[0] - 1) / v.piece, v.next_piece, &last_piece) || __builtin_add_overflow(v.offset, last_piece, &v.offset)) return false;
    v.dims[0] = v.piece;
  }
  return axis_end(v, 0, width, down) && axis_end(v, 1, width, right) && !__builtin_add_overflow(down, right, &end) &&
         !__builtin_add_overflow(end, v.offset, &end) && !__builtin_add_overflow(end, width, &end);
}

// Words of codes in order, which lie behind each other, without lanes or streams along the other axis.
bool whole_words(const ir::View& v, size_t axis, Elem elem) {
  const ir::Lanes& l = v.lanes[axis];
  const int width = bits(elem);
  bool ordered = l.count * width == 32;
  for (int32_t i = 0; ordered && i < l.count; ++i) ordered = l.bit[static_cast<size_t>(i)] == i * width;
  return ordered && v.lanes[1 - axis].count == 1 && v.words == std::array<int64_t, 2>{} && v.offset % 32 == 0 && v.stride[axis] % 32 == 0 &&
         v.stride[1 - axis] % 32 == 0;
}

// A dense stream of whole planes, whose other axis consists of whole words.
bool sound_planes(const ir::View& v, Elem elem) {
  const size_t axis = planes_axis(v);
  return is_integer_code(elem) && bits(elem) < 8 && v.lanes[0].count == 1 && v.lanes[1].count == 1 && v.stride[axis] == bits(elem) && v.dims[axis] % 32 == 0 &&
         v.stride[1 - axis] >= 32 && v.stride[1 - axis] % 32 == 0 && v.offset % 32 == 0;
}

bool sound_lanes(const ir::View& v, Elem elem) {
  for (size_t axis = 0; axis < 2; ++axis) {
    const ir::Lanes& l = v.lanes[axis];
    if (l.count < 1 || l.count > static_cast<int32_t>(l.bit.size()) || v.words[axis] < 0 || v.words[axis] % 32 != 0) return false;
    const bool lanes = l.count > 1 || last_lane(v, axis) != 0;
    if ((v.words[axis] != 0 && !is_integer_code(elem)) || (lanes && !is_integer_code(elem) && elem != Elem::e2m1)) return false;
  }
  // Words are read as lines along the other axis.
  if (v.words[0] != 0 && (v.words[1] != 0 || v.stride[1] % 32 != 0)) return false;
  if (v.words[1] != 0 && v.stride[0] % 32 != 0) return false;
  if (v.words[0] + v.words[1] != 0 && v.offset % 32 != 0) return false;
  if (v.planes && !sound_planes(v, elem)) return false;
  if (v.less == ir::Less::word && !whole_words(v, 0, elem) && !whole_words(v, 1, elem)) return false;
  return (!v.offset_binary && v.less == ir::Less::none) || is_integer_code(elem);
}

// One code to a byte, whatever it was on disk.
Elem value_elem(Elem stored) {
  return is_integer_code(stored) ? Elem::i8 : stored;
}

// The numbers of a masked matrix lie within their tensor, and its bits within theirs.
bool sound_mask(const Input& in) {
  const ir::Mask& m = in.mask;
  const int64_t rows = in.view.dims[0], cols = in.view.dims[1], width = bits(in.elem);
  const auto within = [](int64_t each, int64_t count, uint64_t bytes) {
    int64_t all = 0;
    return !__builtin_mul_overflow(each, count, &all) && static_cast<uint64_t>(all) <= bytes;
  };
  const bool plain = in.view == ir::View{.dims = in.view.dims} && !is_packed(in.view, in.elem) && (width == 8 || width == 16 || width == 32);
  if (!plain || in.rows_per != 1 || m.offset > static_cast<uint64_t>(largest_bits) || !within(rows, cols / 8 + (cols % 8 != 0 ? 1 : 0), m.bytes)) return false;
  if (m.starts.empty()) return cols % 4 == 0 && within(rows, cols / 2 * (width / 8), in.bytes);
  if (m.starts.size() != static_cast<size_t>(rows) + 1 || m.starts.front() < 0) return false;
  for (size_t i = 1; i < m.starts.size(); ++i)
    if (m.starts[i] < m.starts[i - 1] || m.starts[i] - m.starts[i - 1] > cols) return false;
  return within(m.starts.back(), width / 8, in.bytes);
}

// Numbers that are repeated: as many are stored as the last one needs, and they lie as plain numbers do.
bool sound_repeat(const ir::View& v, Elem elem) {
  if (!is_repeated(v)) return v.repeat[0].phase == 0 && v.repeat[1].phase == 0 && v.repeat[0].times == 1 && v.repeat[1].times == 1;
  for (const ir::View::Repeat& r : v.repeat)
    if (r.times < 1 || r.phase < 0 || r.phase >= r.times) return false;
  return v.piece == 0 && (is_integer_code(elem) || (!is_packed(v, elem) && bits(elem) % 8 == 0));
}

Result<void> check_change(const Input& in);

// Inputs that are one: of one element, as many across, whole rows each; in turns all of the same size.
Result<void> check_joined(const Input& in, int depth);

Result<void> check_input(const Input& in, int depth = 0) {
  const ir::View& v = in.view;
  if (!in.joined.empty()) return check_joined(in, depth);
  if (!v.parts.empty()) {
    const size_t along = v.along, across = 1 - along;
    int64_t sum = 0;
    for (const ir::View& part : v.parts) {
      Input one = in;
      one.view = part;
      if (along > 1 || !part.parts.empty() || part.dims[across] != v.dims[across] || part.dims[along] < 0 ||
          __builtin_add_overflow(sum, part.dims[along], &sum))
        return malformed(fmt::format("input '{}' has parts that do not fit together", escape(in.tensor)));
      QB_TRY(check_input(one));
    }
    if (sum != v.dims[along]) return malformed(fmt::format("the parts of input '{}' are not its {} x {}", escape(in.tensor), v.dims[0], v.dims[1]));
    return {};
  }
  const int64_t width = bits(in.elem);
  const std::string name = escape(in.tensor);
  if (!countable(v.dims[0], v.dims[1], width)) return malformed(fmt::format("input '{}' has the impossible size {} x {}", name, v.dims[0], v.dims[1]));
  if (v.stride[0] < 0 || v.stride[1] < 0 || v.offset < 0) return malformed(fmt::format("input '{}' has a negative stride or offset", name));
  if (v.piece < 0 || v.next_piece < 0 || (v.piece != 0 && is_packed(v, in.elem)))
    return malformed(fmt::format("input '{}' has pieces that cannot be read", name));
  if (in.rows_per < 0) return malformed(fmt::format("input '{}' has a negative rows_per", name));
  if (!sound_repeat(v, in.elem)) return malformed(fmt::format("input '{}' repeats what cannot be repeated", name));
  if (!sound_lanes(v, in.elem)) return malformed(fmt::format("input '{}' has lanes or words that no integer codes have", name));
  if (v.dims[1] * bits(value_elem(in.elem)) % 8 != 0)
    return malformed(fmt::format("input '{}': a row of {} {} numbers is not whole bytes", name, v.dims[1], info(in.elem).name));
  const bool masked = !in.mask.tensor.empty();
  if (masked && !sound_mask(in)) return malformed(fmt::format("the numbers of input '{}' are not as many as its mask needs", name));
  int64_t end = 0;
  if (!masked && (!view_end(v, width, end) || in.bytes > static_cast<uint64_t>(largest_bits) / 8 || end > static_cast<int64_t>(in.bytes * 8))) {
    return malformed(fmt::format("the view of input '{}' reaches beyond the tensor's {} bytes", name, in.bytes));
  }
  if (in.offset > static_cast<uint64_t>(largest_bits)) return malformed(fmt::format("input '{}' has an impossible offset", name));
  return {};
}

Result<void> check_joined(const Input& in, int depth) {
  const auto wrong = [&in] { return malformed(fmt::format("input '{}' consists of others that do not fit together", escape(in.tensor))); };
  const ir::View& v = in.view;
  if (in.join.along > 1 || v != ir::View{.dims = v.dims} || !in.mask.tensor.empty() || depth > 1 || in.rows_per < 0) return wrong();
  const size_t along = in.join.along, across = 1 - along;
  int64_t sum = 0;
  for (const Input& part : in.joined) {
    QB_TRY(check_input(part, depth + 1));
    QB_TRY(check_change(part));
    const bool fits = part.elem == in.elem && part.rows_per == in.rows_per && part.view.dims[across] == v.dims[across] &&
                      (!in.join.turns || part.view.dims[along] == in.joined.front().view.dims[along]);
    if (!fits || __builtin_add_overflow(sum, part.view.dims[along], &sum)) return wrong();
  }
  if (sum != v.dims[along] || !countable(v.dims[0], v.dims[1], bits(in.elem))) return wrong();
  return {};
}

// An input that is changed while it is read: floats, times floats for its rows (rows_per 1) or its columns (0: whole).
Result<void> check_change(const Input& in) {
  if (!in.changed()) return {};
  const std::string name = escape(in.tensor);
  if (!is_wide_float(in.elem) && in.elem != Elem::e4m3) return malformed(fmt::format("input '{}': {} numbers are not changed", name, info(in.elem).name));
  if (!(in.times > 0) || !std::isfinite(in.times) || !std::isfinite(in.plus)) return malformed(fmt::format("input '{}' times {}", name, in.times));
  for (const Input& by : in.by) {
    QB_TRY(check_input(by));
    const auto [rows, cols] = by.view.dims;
    const bool fits = by.rows_per == 1 ? rows == in.view.dims[0] && cols == 1 : by.rows_per == 0 && rows * cols == in.view.dims[1];
    if (!is_wide_float(by.elem) || by.changed() || !fits)
      return malformed(
          fmt::format("input '{}' times {} x {} numbers of '{}', a float for each row or column was expected", name, rows, cols, escape(by.tensor)));
  }
  return {};
}

bool is_number(Elem e) {
  switch (e) {
    case Elem::f32:
    case Elem::f16:
    case Elem::bf16:
    case Elem::e4m3:
    case Elem::e5m2:
    case Elem::e8m0:
      return true;
    default:
      return false;
  }
}
// The grid of a type's scales over n x k, as a value.
ValueType scale_grid(const ir::Block& block, int64_t n, int64_t k, Elem elem) {
  return ValueType{elem, value_rows(n, block.rows), block.cols == 0 ? 1 : value_rows(k, block.cols), block.rows};
}

bool same_grid(const ValueType& a, const ValueType& b) {
  return a.rows == b.rows && a.cols == b.cols && a.rows_per == b.rows_per;
}

class Checker {
 public:
  Checker(const Program& p, ScaleElem ask) : p_(p), ask_(ask) {}

  Result<std::vector<ValueType>> run() {
    if (p_.rows < 0 || p_.row_multiple < 1) return malformed(fmt::format("{} rows in multiples of {}", p_.rows, p_.row_multiple));
    for (const Input& in : p_.inputs) {
      QB_TRY(check_input(in));
      QB_TRY(check_change(in));
      if (in.view.dims[0] != value_rows(p_.rows, in.rows_per)) {
        return malformed(fmt::format("input '{}' has {} rows, but a program of {} rows with one for every {} needs {}", escape(in.tensor), in.view.dims[0],
                                     p_.rows, in.rows_per, value_rows(p_.rows, in.rows_per)));
      }
      values_.push_back(ValueType{value_elem(in.elem), in.view.dims[0], in.view.dims[1], in.rows_per});
    }
    for (const Reduction& r : p_.reductions) {
      if (r.over.empty()) return malformed("a reduction over nothing");
      for (const Input& in : r.over) {
        QB_TRY(check_input(in));
        QB_TRY(check_change(in));
        if (!is_wide_float(in.elem)) return malformed(fmt::format("absmax over '{}', which is {}", escape(in.tensor), info(in.elem).name));
      }
    }
    for (const Op& op : p_.ops) QB_TRY(std::visit([this](const auto& o) { return check(o); }, op));
    for (const Output& out : p_.outputs) QB_TRY(check(out));
    return std::move(values_);
  }

 private:
  Error wrong(std::string_view op, std::string what) const { return malformed(fmt::format("{} giving %{}: {}", op, values_.size(), what)); }

  bool exists(ValueId id) const { return id >= 0 && static_cast<size_t>(id) < values_.size(); }
  bool has(ValueId id) const { return exists(id) && !at(id).turned; }
  const ValueType& at(ValueId id) const { return values_[static_cast<size_t>(id)]; }

  Result<void> push(std::string_view op, ValueType v) {
    if (!countable(v.rows, v.cols, bits(v.elem)) || v.cols * bits(v.elem) % 8 != 0) {
      return wrong(op, fmt::format("a row of {} {} numbers is not whole bytes", v.cols, info(v.elem).name));
    }
    values_.push_back(v);
    return {};
  }

  Result<void> check(const Copy& op) {
    if (!has(op.src)) return wrong("copy", fmt::format("there is no %{}", op.src));
    return push("copy", at(op.src));
  }

  Result<void> check(const Literal& op) {
    const uint64_t n = op.bytes.size() * 8, width = static_cast<uint64_t>(bits(op.elem));
    if (op.bytes.empty() || n % width != 0) return wrong("literal", fmt::format("{} bytes are no {} numbers", op.bytes.size(), info(op.elem).name));
    return push("literal", ValueType{op.elem, 1, static_cast<int64_t>(n / width), 0});
  }

  Result<void> check(const Recode& op) {
    if (!has(op.src)) return wrong("recode", fmt::format("there is no %{}", op.src));
    ValueType v = at(op.src);
    if (!is_number(v.elem) || !is_wide_float(op.to)) return wrong("recode", fmt::format("{} to {} is not defined", info(v.elem).name, info(op.to).name));
    v.elem = op.to;
    return push("recode", v);
  }

  Result<void> check(const Rescale& op) {
    if (!has(op.src)) return wrong("rescale", fmt::format("there is no %{}", op.src));
    if (!is_wide_float(at(op.src).elem)) return wrong("rescale", fmt::format("of {} is not defined", info(at(op.src).elem).name));
    return push("rescale", at(op.src));
  }

  Result<void> check(const Dequantize& op) {
    for (ValueId id : {op.code, op.scale}) {
      if (!has(id)) return wrong("dequantize", fmt::format("there is no %{}", id));
    }
    const ValueType code = at(op.code), scale = at(op.scale);
    if (op.type.plain() || op.type.block.rows < 0 || op.type.block.cols < 0) return wrong("dequantize", "plain numbers are not defined");
    if (code.elem != value_elem(op.type.code) || code.rows_per != 1)
      return wrong("dequantize", fmt::format("the codes are {}, not {}", info(code.elem).name, info(op.type.code).name));
    if (code.elem != Elem::e4m3 && code.elem != Elem::e5m2 && code.elem != Elem::e2m1 && code.elem != Elem::i8) {
      return wrong("dequantize", fmt::format("of {} codes is not defined", info(code.elem).name));
    }
    const ValueType want = scale_grid(op.type.block, p_.rows, code.cols, scale.elem);
    if (!same_grid(scale, want)) {
      return wrong("dequantize", fmt::format("the scales are {} x {} (one row for {}), the type needs {} x {} (one row for {})", scale.rows, scale.cols,
                                             scale.rows_per, want.rows, want.cols, want.rows_per));
    }
    const bool exponent = op.scale_form == ir::ScaleForm::exponent;
    if (exponent ? scale.elem != Elem::u8 && scale.elem != Elem::e8m0 : !is_number(scale.elem)) {
      return wrong("dequantize", fmt::format("{} scales are not defined{}", info(scale.elem).name, exponent ? " as exponents" : ""));
    }
    if (op.global != -1) {
      if (!has(op.global)) return wrong("dequantize", fmt::format("there is no %{}", op.global));
      const ValueType g = at(op.global);
      if (g.rows_per != 0 || g.cols != 1 || !is_wide_float(g.elem) || op.global_form == ir::ScaleForm::exponent || !op.type.two_level()) {
        return wrong("dequantize", "the global scale must be one floating-point number of a two-level type");
      }
    }
    if ((op.zero != -1) != (op.type.zero != ir::Zero::none)) return wrong("dequantize", "zero points belong to types that have them");
    if (op.zero != -1 && (!has(op.zero) || code.elem != Elem::i8 || at(op.zero).elem != Elem::i8 || !same_grid(at(op.zero), want))) {
      return wrong("dequantize", "zero points are integers, one for each scale");
    }
    if (op.order != -1) {
      const bool grouped = op.type.block.rows == 1 && op.type.block.cols > 0 && code.elem == Elem::i8;
      if (!grouped || !has(op.order) || at(op.order).elem != Elem::i32 || at(op.order).rows_per != 0 || at(op.order).cols != code.cols) {
        return wrong("dequantize", "an order is one i32 for each column of grouped integers");
      }
    }
    return push("dequantize", ValueType{Elem::f32, code.rows, code.cols, 1});
  }

  Result<void> check(const Fold& op) {
    for (ValueId id : {op.src, op.a, op.b, op.prescale})
      if ((id != -1 || id == op.src) && (!has(id) || at(id).elem != Elem::f32)) return wrong("fold", fmt::format("%{} is no f32 value", id));
    const ValueType src = at(op.src);
    if (src.rows_per != 1 || (op.a == -1) != (op.b == -1)) return wrong("fold", "a matrix and both factors, or none, are needed");
    if (op.prescale != -1 && (at(op.prescale).rows_per != 0 || at(op.prescale).cols != src.cols)) return wrong("fold", "one factor for each column");
    if (op.a != -1 && (at(op.a).rows_per != 0 || at(op.b).rows_per != 1 || at(op.b).cols < 1 || at(op.b).cols > (1 << 20) ||
                       at(op.a).cols / at(op.b).cols != src.cols || at(op.a).cols % at(op.b).cols != 0))
      return wrong("fold", fmt::format("the factors do not make a matrix of {} columns", src.cols));
    return push("fold", src);
  }

  Result<void> check(const Rotate& op) {
    if (!has(op.src) || !has(op.matrix)) return wrong("rotate", "there is no such value");
    const ValueType src = at(op.src), matrix = at(op.matrix);
    const int64_t block = side(matrix.cols);
    const bool floats = is_wide_float(matrix.elem) || matrix.elem == Elem::f64;
    if (src.elem != Elem::f32 || src.rows_per != 1 || !floats || matrix.rows_per != 0 || block == 0 || !(op.divisor > 0))
      return wrong("rotate", "a float32 matrix and a square one are needed");
    if ((op.down ? src.rows : src.cols) % block != 0) return wrong("rotate", fmt::format("{} x {} are not whole blocks of {}", src.rows, src.cols, block));
    if (op.down && p_.row_multiple % block != 0 && p_.row_multiple < p_.rows)
      return wrong("rotate", fmt::format("row multiple {} cuts blocks of {} rows", p_.row_multiple, block));
    return push("rotate", src);
  }

  Result<void> check(const Hadamard& op) {
    if (!has(op.src) || !is_wide_float(at(op.src).elem) || at(op.src).rows_per != 1 || !is_wide_float(op.to)) return wrong("hadamard", "floats are needed");
    ValueType v = at(op.src);
    if (op.gains != -1 && (!has(op.gains) || !is_wide_float(at(op.gains).elem) || at(op.gains).rows_per != 0 || at(op.gains).cols != v.cols))
      return wrong("hadamard", "one gain for each column");
    for (const auto& [basis, count] : {std::pair{op.along, v.cols}, std::pair{op.down, v.rows}})
      if (basis.block < 1 || basis.block > largest_basis || !std::has_single_bit(static_cast<uint64_t>(basis.block)) || basis.period < 1 ||
          count % basis.block != 0)
        return wrong("hadamard", fmt::format("{} numbers are not whole blocks of {}", count, basis.block));
    if (p_.row_multiple % op.down.block != 0 && p_.row_multiple < p_.rows)
      return wrong("hadamard", fmt::format("row multiple {} cuts blocks of {} rows", p_.row_multiple, op.down.block));
    v.elem = op.to;
    return push("hadamard", v);
  }

  Result<void> check(const Quantize& op) {
    if (!exists(op.src)) return wrong("quantize", fmt::format("there is no %{}", op.src));
    const ValueType src = at(op.src);
    if (!is_wide_float(src.elem) || src.rows_per != 1) return wrong("quantize", fmt::format("of {} is not defined", info(src.elem).name));
    if (op.type.plain() || op.type.block.rows < 0 || op.type.block.cols < 0) return wrong("quantize", "to a plain type");
    if (op.reduction < -1 || op.reduction >= static_cast<int64_t>(p_.reductions.size())) {
      return wrong("quantize", fmt::format("there is no reduction {}", op.reduction));
    }
    if (src.turned && (!is_integer_code(op.type.code) || op.type.block.rows != 1)) return wrong("quantize", "columns are made into groups of integers only");
    const ir::Block block = src.turned ? ir::Block{op.type.block.cols, op.type.block.rows} : op.type.block;
    const int64_t tall = src.turned && block.rows == 0 ? p_.rows : block.rows;
    if (tall > 1 && p_.row_multiple % tall != 0 && p_.row_multiple < p_.rows) {
      return wrong("quantize", fmt::format("row multiple {} cuts blocks of {} rows", p_.row_multiple, tall));
    }
    const auto grid = [&](Elem elem) {
      ValueType v = scale_grid(block, p_.rows, src.cols, elem);
      v.turned = src.turned;
      return v;
    };
    const Elem elem = scale_elem(op, src.elem, static_cast<ValueId>(values_.size()) + 1);
    QB_TRY(push("quantize", ValueType{value_elem(op.type.code), src.rows, src.cols, 1, src.turned}));
    QB_TRY(push("quantize", grid(elem)));
    if (op.type.two_level()) QB_TRY(push("quantize", ValueType{Elem::f32, 1, 1, 0}));
    if (op.type.zero != ir::Zero::none) {
      if (!is_integer_code(op.type.code)) return wrong("quantize", "zero points belong to integers");
      QB_TRY(push("quantize", grid(Elem::i8)));
    }
    return {};
  }

  Result<void> check(const Turn& op) {
    if (!exists(op.src)) return wrong("turn", fmt::format("there is no %{}", op.src));
    ValueType v = at(op.src);
    if (bits(v.elem) % 8 != 0) return wrong("turn", fmt::format("of {} is not defined", info(v.elem).name));
    v.turned = !v.turned;
    return push("turn", v);
  }

  Result<void> check(const Pack& op) {
    if (!has(op.src)) return wrong("pack", fmt::format("there is no %{}", op.src));
    const ValueType src = at(op.src);
    if (src.rows_per != 1) return wrong("pack", fmt::format("%{} has one row for every {} rows, not for each", op.src, src.rows_per));
    if (!packs(op.layout, src.elem)) return wrong("pack", fmt::format("{} does not lie in {}", info(src.elem).name, ir::to_string(op.layout)));
    if (op.layout == ir::Layout::rows) return push("pack", ValueType{Elem::u8, src.rows, static_cast<int64_t>(src.row_bytes()), 1});
    if (p_.row_multiple % ir::panel_rows != 0 && p_.row_multiple < p_.rows) {
      return wrong("pack", fmt::format("row multiple {} cuts panels of {} rows", p_.row_multiple, ir::panel_rows));
    }
    // Padding enlarges a panel by less than 16 columns' worth of rows.
    if (src.cols > largest_bits / 1024) return wrong("pack", fmt::format("{} columns are too many", src.cols));
    return push("pack", ValueType{Elem::u8, value_rows(src.rows, ir::panel_rows), ir::panel_bytes(op.layout, src.cols, bits(src.elem)), ir::panel_rows});
  }

  Result<void> check(const PackWords& op) {
    if (!has(op.src)) return wrong("pack", fmt::format("there is no %{}", op.src));
    const ValueType src = at(op.src);
    if (src.elem != Elem::i8 || op.bits < 2 || op.bits > 8) return wrong("pack", fmt::format("{} bits of {} are no words", op.bits, info(src.elem).name));
    const bool whole = 32 % op.bits == 0, lanes = op.lanes.count > 1;
    if (op.lanes.count < 1 || (lanes && (op.lanes.count * op.bits != 32 || op.planes || op.down)) || (op.planes && op.bits == 8) ||
        (op.less == ir::Less::word && !whole))
      return wrong("pack", "no such words");
    for (int32_t i = 0; lanes && i < op.lanes.count; ++i)
      if (op.lanes.bit[static_cast<size_t>(i)] + op.bits > 32) return wrong("pack", "lanes beyond a word");
    if (!op.down) return push("pack", ValueType{Elem::i32, src.rows, ir::dense_words(src.cols, op.bits), src.rows_per});
    if (src.rows_per != 1) return wrong("pack", fmt::format("%{} has one row for every {} rows, not for each", op.src, src.rows_per));
    if (p_.row_multiple % 32 != 0 && p_.row_multiple < p_.rows) return wrong("pack", fmt::format("row multiple {} cuts blocks of 32 rows", p_.row_multiple));
    if (src.cols > largest_bits / 1024) return wrong("pack", fmt::format("{} columns are too many", src.cols));
    return push("pack", ValueType{Elem::i32, value_rows(src.rows, 32), op.bits * src.cols, 32});
  }

  Result<void> check(const Pad& op) {
    if (!has(op.src)) return wrong("pad", fmt::format("there is no %{}", op.src));
    ValueType v = at(op.src);
    if (op.cols < v.cols || op.cols > largest_bits / 1024) return wrong("pad", fmt::format("of {} columns to {}", v.cols, op.cols));
    v.cols = op.cols;
    return push("pad", v);
  }

  Result<void> check(const Zeros& op) {
    if (op.cols < 0 || op.cols > largest_bits / 1024) return wrong("zeros", fmt::format("{} columns", op.cols));
    return push("zeros", ValueType{Elem::i8, p_.rows, op.cols, 1});
  }

  Result<void> check(const Groups& op) {
    if (op.cols < 1 || op.cols > INT32_MAX || op.group < 0) return wrong("groups", fmt::format("{} columns in groups of {}", op.cols, op.group));
    return push("groups", ValueType{Elem::i32, 1, op.cols, 0});
  }

  Result<void> check(const PackNibbles& op) {
    if (!has(op.src)) return wrong("pack", fmt::format("there is no %{}", op.src));
    const ValueType src = at(op.src);
    const bool pairs = op.order == ir::Nibbles::row_pairs;
    if ((src.elem != Elem::i8 && (src.elem != Elem::e2m1 || !pairs)) || src.rows_per != 1 || (pairs ? src.rows : src.cols) % 2 != 0)
      return wrong("pack", fmt::format("{} x {} {} numbers are no pairs of nibbles", src.rows, src.cols, info(src.elem).name));
    return push("pack", pairs ? ValueType{Elem::u8, src.rows / 2, src.cols, 2} : ValueType{Elem::u8, src.rows, src.cols / 2, 1});
  }

  static bool packs(ir::Layout layout, Elem elem) {
    switch (layout) {
      case ir::Layout::rows:
        return true;
      case ir::Layout::panel_bf16:
        return elem == Elem::bf16;
      case ir::Layout::panel_plain:
        return elem == Elem::f16 || elem == Elem::f32;
      case ir::Layout::panel_fp8:
        return elem == Elem::e4m3;
      case ir::Layout::panel_int4:
      case ir::Layout::panel_int8:
        return elem == Elem::i8;
      case ir::Layout::panel_scale:
        return elem == Elem::e4m3 || elem == Elem::e8m0 || elem == Elem::f32 || elem == Elem::i8;
      case ir::Layout::panel_fp4:
        return elem == Elem::e2m1;
    }
    return false;
  }

  Elem scale_elem(const Quantize& op, Elem source, ValueId scale) const {
    if (ask_ != nullptr) {
      if (auto e = ask_(op, source)) return *e;
    }
    for (const Output& o : p_.outputs) {
      if (o.value == scale) return o.dtype;
    }
    switch (op.type.scale) {
      case ir::ScaleValues::e4m3:
        return Elem::e4m3;
      case ir::ScaleValues::e8m0:
        return Elem::e8m0;
      default:
        return Elem::f32;
    }
  }

  Result<void> check(const Output& out) const {
    const std::string name = escape(out.name);
    if (!has(out.value)) return malformed(fmt::format("output '{}' takes %{}, which does not exist", name, out.value));
    const ValueType& v = at(out.value);
    int64_t all = bits(out.dtype);
    for (int64_t d : out.shape) {
      if (d < 0 || __builtin_mul_overflow(all, d, &all)) return malformed(fmt::format("output '{}' has an impossible shape", name));
    }
    // The last row of words that stand for 32 rows may stand for fewer.
    const int64_t full = v.rows * v.cols * bits(v.elem), row = v.cols * bits(v.elem);
    if (all != full && !(v.rows_per == 32 && p_.rows % 32 != 0 && all < full && all > full - row)) {
      return malformed(fmt::format("output '{}' has {} bits, but %{} is {} x {} {}", name, all, out.value, v.rows, v.cols, info(v.elem).name));
    }
    if (out.dtype != v.elem && info(out.dtype).is_float && info(v.elem).is_float) {
      return malformed(fmt::format("output '{}' is {}, but %{} is {}", name, info(out.dtype).name, out.value, info(v.elem).name));
    }
    // A block of rows would end inside a row of this value, and write it twice.
    if (v.rows_per > 1 && p_.row_multiple % v.rows_per != 0 && p_.row_multiple < p_.rows) {
      return malformed(fmt::format("output '{}' has a row for every {} rows, which multiples of {} cut", name, v.rows_per, p_.row_multiple));
    }
    return {};
  }

  const Program& p_;
  ScaleElem ask_;
  std::vector<ValueType> values_;
};

}  // namespace

Result<std::vector<ValueType>> type_check(const Program& p, ScaleElem scale_elem) {
  return Checker(p, scale_elem).run();
}
Result<std::vector<ValueType>> type_check(const Program& p) {
  return type_check(p, nullptr);
}

}  // namespace qb::prog
