#include "dialect/packed.h"

#include <fmt/format.h>

#include <numeric>

#include "dialect/row.h"
#include "prog/typing.h"
#include "recipe/make.h"
#include "recipe/recipe.h"

namespace qb {

bool PackedReading::begin(bool zeros) {
  code_ = r_.find(m_, "qweight");
  zero_ = r_.find(m_, "qzeros");
  scale_ = r_.find(m_, "scales");
  for (const TensorInfo* t : {code_, zero_, scale_})
    if (t != nullptr) r_.claim(*t);
  if (code_ != nullptr && scale_ != nullptr) {
    if (zeros && zero_ == nullptr) absent("zero-point-missing", "qzeros", "zero points, as the config says");
    return matrix(*code_, Elem::i32, "codes");
  }
  const bool code = code_ == nullptr;
  absent(code ? "weight-missing" : "scale-missing", code ? "qweight" : "scales", "qweight and scales of a quantized linear");
  return false;
}

void PackedReading::absent(const char* problem, std::string_view word, std::string expected) const {
  r_.diag.report(problem, {.tensor = fmt::format("{}.{}", m_.path, word), .module = m_.path}, "absent", std::move(expected));
}

bool PackedReading::wrong(const TensorInfo& t, const char* problem, std::string expected) const {
  r_.diag.report(problem, {.file = r_.context.package.file_name(t.file), .tensor = t.name, .module = m_.path},
                 fmt::format("{} [{}]", info(t.dtype).safetensors, fmt::join(t.shape, ",")), std::move(expected));
  return false;
}

bool PackedReading::matrix(const TensorInfo& t, Elem dtype, std::string_view what) const {
  if (t.dtype == dtype && t.shape.size() == 2 && t.shape[0] > 0 && t.shape[1] > 0) return true;
  return wrong(t, t.dtype == dtype ? "weight-shape" : "dtype-unexpected", fmt::format("{} with two dimensions: {}", info(dtype).safetensors, what));
}

bool PackedReading::float_matrix(const TensorInfo& t) const {
  if (t.dtype != Elem::f16 && t.dtype != Elem::bf16 && t.dtype != Elem::f32) return wrong(t, "dtype-unexpected", "F16, BF16 or F32");
  return matrix(t, t.dtype, "scales");
}

bool PackedReading::has_shape(const TensorInfo& t, int64_t rows, int64_t cols) const {
  if (t.shape[0] == rows && t.shape[1] == cols) return true;
  return wrong(t, "scale-shape", fmt::format("[{}, {}] for a weight [{}, {}] with {}", rows, cols, m_.n, m_.k, ir::to_string(m_.scheme->weight)));
}

void PackedReading::add(const TensorInfo& t, ir::Role role, Elem elem, const ir::View& view) const {
  m_.parts.push_back(r_.stored(t, role, elem, view.dims[0], view.dims[1]));
  m_.parts.back().view = view;
}

void PackedReading::add_scale(const ir::View& view) const {
  add(*scale_, ir::Role::scale, scale_->dtype, view);
  OriginEntry entry;
  entry.dtype = scale_->dtype;
  if (scale_->dtype != Elem::f32) m_.parts.back().deviation = to_text(entry);
}

void PackedReading::add_scale(int64_t groups) const {
  add_scale(transposed(m_.n, groups, bits(scale_->dtype)));
}

namespace {

// How words that lie as the view says are made: along which axis of the view the program walks, and the op.
struct Packing32 {
  bool transposed = false;  // it walks the columns
  prog::PackWords op;
};
Packing32 packing_of(const ir::View& as, Elem elem, prog::ValueId src) {
  size_t along = as.stride[0] < as.stride[1] ? 0 : 1;
  for (const size_t axis : {0, 1})
    if (as.lanes[axis].count > 1 || as.words[axis] != 0) along = axis;
  const bool down = as.words[along] != 0;
  return {.transposed = (along == 0) != down,
          .op = {.src = src, .bits = bits(elem), .down = down, .lanes = as.lanes[along], .planes = as.planes, .less = as.less}};
}

// The input with its axes swapped. What rows were multiplied by are numbers of columns now; of columns, those of rows.
prog::Input swapped(prog::Input in) {
  if (in.joined.empty())
    in.view = ir::transposed(std::move(in.view));
  else
    std::swap(in.view.dims[0], in.view.dims[1]);
  in.join.along = in.joined.empty() ? in.join.along : static_cast<uint8_t>(1 - in.join.along);
  for (prog::Input& part : in.joined) part = swapped(std::move(part));
  for (prog::Input& by : in.by) {
    by.rows_per = 1 - by.rows_per;
    if (by.rows_per == 1) by.view = ir::transposed(std::move(by.view));
  }
  return in;
}

}  // namespace

void write_packed(const ir::Stored& s, Elem code, std::string name, std::vector<int64_t> shape, const ir::View& as, Export& out) {
  if (!s.deviation.empty()) out.origin.tensors[name] = s.deviation;
  const bool bytes = as == ir::row_major(as.dims[0], as.dims[1], 8);
  const Elem container = bytes ? Elem::i8 : Elem::i32;
  if (s.container == container && s.shape == shape && s.view == as) return write_bytes(s, std::move(name), out);
  prog::Program p;
  p.inputs.push_back(prog::input_of(s, 1));
  if (bytes) {
    p.ops.emplace_back(prog::Copy{0});
  } else {
    const Packing32 packing = packing_of(as, code, 0);
    if (packing.transposed) p.inputs[0] = swapped(std::move(p.inputs[0]));
    if (packing.op.down) p.row_multiple = 32;
    p.ops.emplace_back(packing.op);
    if (!packing.op.down && shape.back() > ir::dense_words(p.inputs[0].view.dims[1], bits(code))) p.ops.emplace_back(prog::Pad{1, shape.back()});
  }
  p.rows = p.inputs[0].view.dims[0];
  p.outputs.push_back({.name = std::move(name), .dtype = container, .shape = std::move(shape), .value = static_cast<prog::ValueId>(p.ops.size())});
  out.programs.push_back(std::move(p));
}

int64_t groups_of(const ir::QuantType& type, int64_t k) {
  return type.block.cols == 0 ? 1 : (k + type.block.cols - 1) / type.block.cols;
}

void write_made_packed(const ir::Module& m, PackedPart codes, PackedPart zeros, std::string scales, Export& out) {
  const ir::QuantType& type = m.scheme->weight;
  const ir::Stored& source = *m.part(ir::Role::code);
  prog::Program p;
  p.inputs.push_back(prog::input_of(source, 1));
  p.inputs[0] = swapped(std::move(p.inputs[0]));
  p.rows = m.k;
  // Blocks of whole groups, and of whole streams.
  p.row_multiple = type.block.cols == 0 ? m.k : std::lcm(int64_t{type.block.cols}, int64_t{32});
  p.ops.emplace_back(prog::Turn{0});
  p.ops.emplace_back(recipe::quantize_op(m, 1, p));
  prog::ValueId next = 2 + prog::results_of(p.ops.back());
  const auto turned = [&](prog::ValueId made) {
    p.ops.emplace_back(prog::Turn{made});
    return next++;
  };
  const auto packed = [&](prog::ValueId made, PackedPart& part) {
    const Packing32 packing = packing_of(part.as, type.code, turned(made));
    p.ops.emplace_back(packing.op);
    p.outputs.push_back({.name = std::move(part.name), .dtype = Elem::i32, .shape = std::move(part.shape), .value = next++});
  };
  packed(2, codes);
  if (type.zero != ir::Zero::none) packed(4, zeros);
  const Elem dtype = recipe::find_recipe(m.make->recipe)->scale_elem(source.elem);
  p.outputs.push_back({.name = std::move(scales), .dtype = dtype, .shape = {groups_of(type, m.k), m.n}, .value = turned(3)});
  out.programs.push_back(std::move(p));
}

void write_middle(Elem code, std::string name, std::vector<int64_t> shape, const ir::View& as, Export& out) {
  const Packing32 packing = packing_of(as, code, 0);
  prog::Program p;
  p.rows = as.dims[packing.transposed ? 1 : 0];
  p.ops.emplace_back(prog::Zeros{as.dims[packing.transposed ? 0 : 1]});
  p.ops.emplace_back(packing.op);
  const int64_t each = as.dims[packing.transposed ? 0 : 1];
  if (shape.back() > ir::dense_words(each, bits(code))) p.ops.emplace_back(prog::Pad{1, shape.back()});
  p.outputs.push_back({.name = std::move(name), .dtype = Elem::i32, .shape = std::move(shape), .value = static_cast<prog::ValueId>(p.ops.size() - 1)});
  out.programs.push_back(std::move(p));
}

namespace {

// One program for a matrix of scales, as `in` has them: in the dtype that they had here before.
void write_scales(const ir::Stored& s, prog::Input in, std::string name, int64_t columns, const WriteContext& context, Export& out) {
  if (!s.deviation.empty()) out.origin.tensors[name] = s.deviation;
  prog::Program p;
  p.rows = in.view.dims[0];
  const int64_t stored = in.view.dims[1];
  p.inputs.push_back(std::move(in));
  const Elem dtype = noted_dtype(s, context);
  if (dtype == s.container)
    p.ops.emplace_back(prog::Copy{0});
  else
    p.ops.emplace_back(prog::Recode{0, dtype});
  if (columns > stored) p.ops.emplace_back(prog::Pad{1, columns});
  p.outputs.push_back({.name = std::move(name), .dtype = dtype, .shape = {p.rows, columns}, .value = static_cast<prog::ValueId>(p.ops.size())});
  out.programs.push_back(std::move(p));
}

}  // namespace

void write_transposed(const ir::Stored& s, std::string name, const WriteContext& context, Export& out) {
  write_scales(s, swapped(prog::input_of(s, 1)), std::move(name), s.view.dims[0], context, out);
}

void write_padded(const ir::Stored& s, std::string name, int64_t columns, const WriteContext& context, Export& out) {
  write_scales(s, prog::input_of(s, 1), std::move(name), columns, context, out);
}

void write_groups(std::string name, int64_t columns, int32_t group, Export& out) {
  prog::Program p;
  p.ops.emplace_back(prog::Groups{columns, group});
  p.outputs.push_back({.name = std::move(name), .dtype = Elem::i32, .shape = {columns}, .value = 0});
  out.programs.push_back(std::move(p));
}

bool has_packed(const Reading& r, const ir::Module& m) {
  return r.find(m, "qweight") != nullptr || r.find(m, "scales") != nullptr;
}

ir::View transposed(int64_t rows, int64_t cols, int bits) {
  return {.dims = {rows, cols}, .stride = {bits, rows * bits}};
}

}  // namespace qb
