// Writing by rows: programs from stored parts, or from a recipe's results.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "dialect/packed.h"
#include "dialect/row.h"
#include "ir/given.h"
#include "ir/stack.h"
#include "num/codec.h"
#include "prog/typing.h"
#include "recipe/make.h"
#include "recipe/recipe.h"

namespace qb {
namespace {

using prog::Program;
using prog::ValueId;

// 1/x as the executor takes it: float32, rounded once.
float reciprocal(float x) {
  return 1.0f / x;
}

// The value survives a trip through a narrower float.
bool survives(double value, Elem narrow) {
  const auto f = static_cast<float>(value);
  const float back = narrow == Elem::bf16 ? round_bf16(f) : narrow == Elem::f16 ? round_f16(f) : f;
  return static_cast<double>(back) == value;
}

std::string float_bits(float f) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &f, 4);
  return bytes;
}

// Whether the original dtype can be brought back without changing a number.
bool narrow_is_exact(const ir::Stored& s, Elem to, const WriteContext& context) {
  if (s.container != Elem::f32 || (to != Elem::bf16 && to != Elem::f16)) return false;
  if (s.value) return survives(*s.value, to);
  prog::Survey question{.kind = to == Elem::bf16 ? prog::SurveyKind::narrow_bf16 : prog::SurveyKind::narrow_f16, .input = prog::input_of(s, 1)};
  Result<prog::SurveyResult> answer = context.surveyor.ask(question);
  return answer && answer->inexact == 0;
}

// The entry that the way back needs: what made the source unusual in its own dialect, and the bits of a reciprocal that would not come back.
OriginEntry way_back(const ir::Stored& s, const Target& target) {
  OriginEntry e = parse_origin_entry(s.deviation);
  if (s.form != target.form && s.value && s.container == Elem::f32) {
    const auto x = static_cast<float>(*s.value);
    if (reciprocal(reciprocal(x)) != x) e.bits = float_bits(x);
  }
  return e;
}

// Original bits of a scalar, where they give the stored value.
std::string original_bits(const ir::Stored& s, const OriginEntry& entry, const Target& target) {
  if (entry.bits.size() != 4 || s.form == target.form || !s.value || s.container != Elem::f32) return {};
  float x = 0;
  std::memcpy(&x, entry.bits.data(), 4);
  return reciprocal(x) == static_cast<float>(*s.value) ? entry.bits : std::string();
}

// Appends the ops that turn value `v` of format `elem` and form `from` into the target's; returns the id of the result.
ValueId convert(Program& p, ValueId v, Elem elem, ir::ScaleForm from, const Target& target, int& next) {
  if (from != target.form) {
    if (elem != Elem::f32) {
      p.ops.emplace_back(prog::Recode{v, Elem::f32});
      v = next++;
      elem = Elem::f32;
    }
    p.ops.emplace_back(prog::Rescale{v});
    v = next++;
  }
  if (elem != target.dtype) {
    p.ops.emplace_back(prog::Recode{v, target.dtype});
    v = next++;
  }
  return v;
}

Target target_of(const PartRow& part, const ir::Module& m, Elem found) {
  const bool keep = part.any_float && (found == Elem::f32 || found == Elem::f16 || found == Elem::bf16);
  return {.name = ir::tensor_name(m, part.suffix), .dtype = keep ? found : part.container, .shape = part_shape(part, m), .form = part.form};
}

std::string numbers(std::initializer_list<int64_t> list) {
  std::string bytes;
  for (int64_t x : list) bytes.append(reinterpret_cast<const char*>(&x), 8);
  return bytes;
}

void write_shape(const PartRow& part, const ir::Module& m, Export& out) {
  Program p;
  p.ops.emplace_back(prog::Literal{Elem::i64, numbers({m.n, m.k})});
  p.outputs.push_back({.name = ir::tensor_name(m, part.suffix), .dtype = Elem::i64, .shape = {2}, .value = 0});
  out.programs.push_back(std::move(p));
}

// Appends the op that packs the codes in value `v` as the row stores them.
void pack_codes(Program& p, const PartRow& part, ValueId v, Elem code) {
  if (part.packing == Packing::row_pairs) {
    p.row_multiple = std::lcm(p.row_multiple, int64_t{2});
    p.ops.emplace_back(prog::PackNibbles{v, ir::Nibbles::row_pairs});
  } else if (part.packing == Packing::high_first) {
    p.ops.emplace_back(prog::PackNibbles{v, ir::Nibbles::high_first});
  } else {
    p.ops.emplace_back(prog::PackWords{v, bits(code)});
  }
}

// One program makes all tensors of a weight that is quantized now.
void write_made(const Row& row, const ir::Module& m, Export& out) {
  const recipe::Recipe& recipe = *recipe::find_recipe(m.make->recipe);
  const ir::Stored& source = *m.part(ir::Role::code);
  const ir::QuantType& type = m.scheme->weight;
  Program p;
  p.rows = m.n;
  p.row_multiple = recipe::row_multiple(recipe, type);
  p.inputs.push_back(prog::input_of(source, 1));
  p.ops.emplace_back(recipe::quantize_op(m, 0, p));
  int next = prog::results_of(p.ops.front()) + 1;
  for (const PartRow& part : row.parts) {
    if (part.role == ir::Role::shape) write_shape(part, m, out);
    ValueId v = 1;
    Elem elem = part.container;
    ir::ScaleForm form = part.form;
    if (part.role == ir::Role::scale) {
      v = 2;
      elem = recipe.scale_elem(source.elem);
    } else if (part.role == ir::Role::global) {
      v = 3;
      elem = Elem::f32;
      form = recipe.global_divides ? ir::ScaleForm::divide : ir::ScaleForm::multiply;
    } else if (part.role == ir::Role::zero && type.zero != ir::Zero::none) {
      v = 3;
      elem = Elem::i8;
      if (part.packing != Packing::none) {
        p.row_multiple = std::lcm(p.row_multiple, int64_t{32});
        p.ops.emplace_back(prog::PackWords{.src = v, .bits = bits(type.code), .down = true});
        v = next++;
      }
    } else if (part.role != ir::Role::code) {
      continue;
    }
    const Target target = target_of(part, m, elem);
    if (part.role == ir::Role::code && part.packing != Packing::none) {
      pack_codes(p, part, 1, type.code);
      v = next++;
    }
    if (part.role != ir::Role::code && part.role != ir::Role::zero && part.form != ir::ScaleForm::exponent) v = convert(p, v, elem, form, target, next);
    p.outputs.push_back({.name = target.name, .dtype = target.dtype, .shape = target.shape, .value = v});
  }
  // Wider elements first keeps every tensor of the file aligned.
  std::stable_sort(p.outputs.begin(), p.outputs.end(), [](const auto& a, const auto& b) { return bits(a.dtype) > bits(b.dtype); });
  out.programs.push_back(std::move(p));
}

bool is_integer_part(ir::Role role) {
  return role == ir::Role::order || role == ir::Role::input_zero || role == ir::Role::output_zero;
}

// Whether the codes are packed as the row packs them, wherever they begin; of what consists of others, all of them.
bool is_packed_as(const PartRow& part, const ir::Module& m, const ir::Stored& s) {
  if (!s.joined.empty()) return std::all_of(s.joined.begin(), s.joined.end(), [&](const ir::Stored& one) { return is_packed_as(part, m, one); });
  const Target target = target_of(part, m, s.container);
  if (s.container != target.dtype || !s.mask.tensor.empty()) return false;
  const int64_t rows = s.view.dims[0], cols = s.view.dims[1];
  ir::View view = s.view;
  view.offset = 0;
  if (part.packing == Packing::none) return view == ir::row_major(rows, cols, bits(s.elem));
  if (part.packing == Packing::row_pairs) return view == ir::nibbles(rows, cols, ir::Nibbles::row_pairs);
  if (part.packing == Packing::high_first) return view == ir::nibbles(rows, cols, ir::Nibbles::high_first);
  const int axis = part.packing == Packing::words_along_rows ? 0 : 1;
  const std::optional<ir::View> usual = ir::packed_words(rows, cols, bits(s.elem), axis, target.shape[static_cast<size_t>(axis)]);
  return usual && view == *usual;
}

// Whether a stored part lies as the row would write it: then its bytes can be copied. Shapes alone do not say it, since a square matrix packed along the other
// axis has the same one.
bool lies_as_written(const PartRow& part, const ir::Module& m, const ir::Stored& s) {
  return s.joined.empty() && s.view.offset == 0 && s.shape == target_of(part, m, s.container).shape && is_packed_as(part, m, s);
}

// Integer codes, repacked where the row stores them otherwise.
void write_codes(const PartRow& part, const ir::Module& m, const ir::Stored& s, Export& out) {
  const Target target = target_of(part, m, s.container);
  if (!s.deviation.empty()) out.origin.tensors[target.name] = s.deviation;
  if (lies_as_written(part, m, s)) return write_bytes(s, target.name, out);
  Program p;
  p.rows = m.n;
  p.inputs.push_back(prog::input_of(s, 1));
  if (part.packing == Packing::none)
    p.ops.emplace_back(prog::Copy{0});
  else
    pack_codes(p, part, 0, m.scheme->weight.code);
  p.outputs.push_back({.name = target.name, .dtype = target.dtype, .shape = target.shape, .value = 1});
  out.programs.push_back(std::move(p));
}

// Zero points, in bytes or packed along the rows.
void write_zeros(const PartRow& part, const ir::Module& m, const ir::Stored& s, Export& out) {
  Target target = target_of(part, m, s.container);
  const int64_t rows = s.view.dims[0], cols = s.view.dims[1];
  ir::View as = ir::row_major(rows, cols, 8);
  if (part.packing != Packing::none) as = *ir::packed_words(rows, cols, bits(m.scheme->weight.code), 0, target.shape[0]);
  write_packed(s, m.scheme->weight.code, std::move(target.name), std::move(target.shape), as, out);
}

// A number that no tensor holds. It is this dialect's own: the way back needs no note.
void write_given(const ir::Stored& s, Target target, Export& out) {
  Program p;
  p.ops.emplace_back(prog::Literal{s.container, ir::given_bytes(s)});
  int next = 1;
  const ValueId v = info(s.container).is_float ? convert(p, 0, s.elem, s.form, target, next) : 0;
  p.outputs.push_back({.name = std::move(target.name), .dtype = target.dtype, .shape = std::move(target.shape), .value = v});
  out.programs.push_back(std::move(p));
}

// What a module that is quantized now has besides the results of its recipe: numbers by value, and factors that calibration has found.
void write_besides(const Row& row, const ir::Module& m, const WriteContext& context, Export& out) {
  for (const PartRow& part : row.parts)
    if (const ir::Stored* s = m.part(part.role); s != nullptr && (ir::is_given(*s) || part.role == ir::Role::prescale))
      write_stored(*s, target_of(part, m, s->container), context, out);
}

}  // namespace

bool keeps_bytes(const Row& row, const ir::Module& m) {
  for (const PartRow& part : row.parts) {
    const ir::Stored* s = m.part(part.role);
    if (s == nullptr || (part.role != ir::Role::code && part.role != ir::Role::zero)) continue;
    if (!is_packed_as(part, m, *s)) return false;
  }
  return true;
}

void write_stored(const ir::Stored& s, Target target, const WriteContext& context, Export& out) {
  if (ir::is_given(s)) return write_given(s, std::move(target), out);
  const OriginEntry origin = context.restore_origin ? parse_origin_entry(s.origin) : OriginEntry{};
  Program p;
  p.rows = s.view.dims[0];
  if (origin.shape) {
    int64_t count = 1;
    for (int64_t d : *origin.shape) count = d > 0 && count < (int64_t{1} << 40) ? count * d : 0;
    if (count == s.view.dims[0] * s.view.dims[1]) target.shape = *origin.shape;
  }
  if (origin.dtype && info(*origin.dtype).is_float && target.dtype == Elem::f32 && narrow_is_exact(s, *origin.dtype, context)) target.dtype = *origin.dtype;
  if (origin.dtype && target.form == ir::ScaleForm::exponent && (*origin.dtype == Elem::u8 || *origin.dtype == Elem::e8m0)) target.dtype = *origin.dtype;
  const OriginEntry back = way_back(s, target);
  if (!back.empty()) out.origin.tensors[target.name] = to_text(back);
  const std::string bits = original_bits(s, origin, target);
  int next = 1;
  ValueId v = 0;
  if (!bits.empty() && target.dtype == Elem::f32) {
    p.ops.emplace_back(prog::Literal{Elem::f32, bits});
    v = 0;  // no inputs
  } else {
    const bool scalar = s.view.dims[0] == 1 && s.view.dims[1] == 1;
    p.inputs.push_back(prog::input_of(s, scalar ? 0 : 1));
    // Exponents are bytes, whether the file calls them U8 or F8_E8M0.
    if (s.form == target.form && (s.container == target.dtype || s.form == ir::ScaleForm::exponent)) {
      p.ops.emplace_back(prog::Copy{0});
      v = next++;
    } else {
      v = convert(p, 0, s.elem, s.form, target, next);
    }
  }
  p.outputs.push_back({.name = std::move(target.name), .dtype = target.dtype, .shape = std::move(target.shape), .value = v});
  out.programs.push_back(std::move(p));
}

void write_bytes(const ir::Stored& s, std::string name, Export& out) {
  Program p;
  const bool matrix = s.shape.size() >= 2;
  p.rows = matrix ? s.shape[0] : 1;
  int64_t cols = 1;
  for (size_t i = matrix ? 1 : 0; i < s.shape.size(); ++i) cols *= s.shape[i];
  p.inputs.push_back({s.tensor, s.file, s.offset, s.bytes, s.container, ir::row_major(p.rows, cols, bits(s.container)), 1});
  p.ops.emplace_back(prog::Copy{0});
  p.outputs.push_back({.name = std::move(name), .dtype = s.container, .shape = s.shape, .value = 1});
  out.programs.push_back(std::move(p));
}

Elem noted_dtype(const ir::Stored& s, const WriteContext& context) {
  const OriginEntry origin = context.restore_origin ? parse_origin_entry(s.origin) : OriginEntry{};
  return origin.dtype && narrow_is_exact(s, *origin.dtype, context) ? *origin.dtype : s.container;
}

void write_plain(const ir::Stored& s, Export& out) {
  Program p;
  p.rows = s.view.dims[0];
  p.inputs.push_back(prog::input_of(s, 1));
  p.ops.emplace_back(prog::Copy{0});
  p.outputs.push_back({.name = ir::whole_name(s), .dtype = s.container, .shape = ir::whole_shape(s), .value = 1});
  out.programs.push_back(std::move(p));
}

void write_row(const Row& row, const ir::Module& m, const WriteContext& context, Export& out) {
  if (m.make) {
    write_made(row, m, out);
    write_besides(row, m, context, out);
  } else {
    for (const PartRow& part : row.parts) {
      const ir::Stored* s = m.part(part.role);
      if (part.role == ir::Role::shape)
        write_shape(part, m, out);
      else if (s != nullptr && part.role == ir::Role::code && (is_integer_code(m.scheme->weight.code) || part.packing != Packing::none))
        write_codes(part, m, *s, out);
      else if (s != nullptr && part.role == ir::Role::zero)
        write_zeros(part, m, *s, out);
      else if (s != nullptr && is_integer_part(part.role))
        write_bytes(*s, ir::tensor_name(m, part.suffix), out);
      else if (s != nullptr)
        write_stored(*s, target_of(part, m, s->container), context, out);
    }
  }
  for (const ir::Stored& s : m.parts)
    if (s.role == ir::Role::bias || s.role == ir::Role::plain) write_plain(s, out);
}

}  // namespace qb
