#include "layer/numbers.h"

#include <algorithm>
#include <utility>

#include "recipe/make.h"
#include "recipe/recipe.h"

namespace qb::layer {
namespace {

using ir::Role;

Elem value_elem(Elem code) {
  return is_integer_code(code) ? Elem::i8 : code;
}

Numbers made(const ir::Module& m, prog::Program& p) {
  const ir::Stored& source = *m.part(Role::code);
  const recipe::Recipe& recipe = *recipe::find_recipe(m.make->recipe);
  const ir::QuantType& type = m.scheme->weight;
  const auto blocks = [](int64_t count, int32_t block) { return block == 0 ? 1 : (count + block - 1) / block; };
  const int64_t rows = blocks(m.n, type.block.rows), cols = blocks(m.k, type.block.cols);
  p.row_multiple = recipe::row_multiple(recipe, type);
  p.inputs.push_back(prog::input_of(source, 1));
  p.ops.emplace_back(recipe::quantize_op(m, 0, p));
  Numbers out;
  out.next = 1;
  const auto result = [&](std::string_view word, Elem elem, int64_t n, int64_t k) {
    return Numbers::Part{.name = source.tensor + std::string(word), .value = out.next++, .elem = elem, .rows = n, .cols = k};
  };
  out.code = result("", value_elem(type.code), m.n, m.k);
  out.scale = result("_scale", recipe.scale_elem(source.elem), rows, cols);
  if (type.two_level()) {
    out.global = result("_scale_2", Elem::f32, 1, 1);
    out.global->form = recipe.global_divides ? ir::ScaleForm::divide : ir::ScaleForm::multiply;
  }
  if (type.zero != ir::Zero::none) out.zero = result("_zero_point", Elem::i8, rows, cols);
  return out;
}

}  // namespace

Numbers numbers_of(const ir::Module& m, bool moved, prog::Program& p) {
  p.rows = m.n;
  if (m.make) return made(m, p);
  Numbers out;
  const int32_t block_rows = m.scheme ? m.scheme->weight.block.rows : 1;
  p.row_multiple = std::max(block_rows, 1);
  const auto input = [&](Role role, int64_t rows_per) -> std::optional<Numbers::Part> {
    const ir::Stored* s = m.part(role);
    if (s == nullptr) return std::nullopt;
    p.inputs.push_back(prog::input_of(*s, rows_per));
    return Numbers::Part{.name = s->tensor,
                         .value = out.next++,
                         .elem = role == Role::zero ? Elem::i8 : value_elem(s->elem),
                         .rows = s->view.dims[0],
                         .cols = s->view.dims[1],
                         .form = s->form};
  };
  if (!moved) out.code = input(Role::code, 1);
  if (m.scheme) out.scale = input(Role::scale, block_rows);
  if (out.scale) out.zero = input(Role::zero, block_rows);
  if (out.scale && !moved) out.order = input(Role::order, 0);
  return out;
}

prog::Output output_of(const Numbers::Part& part) {
  return {.name = part.name, .dtype = part.elem, .shape = {part.rows, part.cols}, .value = part.value};
}

}  // namespace qb::layer
