#include "pass/overlay.h"

#include <algorithm>

#include "recipe/recipe.h"

namespace qb::pass {
namespace {

using ir::Role;

const TensorInfo* find(const Overlay& overlay, const std::string& name) {
  const auto it = overlay.tensors.find(name);
  return it == overlay.tensors.end() ? nullptr : &it->second;
}

ir::Stored stored(const TensorInfo& t, Role role, Elem elem, int64_t rows, int64_t cols) {
  return ir::stored(t, role, elem, ir::row_major(rows, cols, bits(t.dtype)));
}

void change(ir::Module& m, const Overlay& overlay) {
  for (ir::Stored& s : m.parts) {
    const TensorInfo* t = find(overlay, s.tensor);
    if (t == nullptr || t->bytes != s.bytes || t->dtype != s.container) continue;
    s.file = t->file;
    s.offset = t->offset;
  }
}

}  // namespace

void change_numbers(ir::Checkpoint& c, const Overlay& overlay) {
  for (ir::Module& m : c.modules) change(m, overlay);
}

void change_numbers_alone(ir::Checkpoint& c, const Overlay& overlay) {
  for (ir::Module& m : c.modules)
    if (find(overlay, "prescale:" + m.path) == nullptr) change(m, overlay);
}

void give_codes(ir::Module& m, const Overlay& overlay) {
  if (!m.make || !m.scheme) return;
  if (const TensorInfo* t = find(overlay, "prescale:" + m.path); t != nullptr) {
    m.scheme->features.prescale = true;
    m.parts.push_back(stored(*t, Role::prescale, t->dtype, 1, m.k));
  }
  const TensorInfo* code = find(overlay, "code:" + m.path);
  if (code == nullptr) return;
  std::erase_if(m.parts, [](const ir::Stored& s) { return s.role == Role::code; });
  const auto groups = [&](const TensorInfo& t) { return static_cast<int64_t>(t.bytes) * 8 / bits(t.dtype) / m.n; };
  const Elem elem = m.scheme->weight.code;
  m.parts.push_back(ir::stored(*code, Role::code, elem, ir::row_major(m.n, m.k, is_integer_code(elem) ? 8 : bits(elem))));
  m.parts.back().view.offset_binary = is_integer_code(elem);
  if (const auto global = overlay.scalars.find("global:" + m.path); global != overlay.scalars.end()) {
    m.parts.push_back(stored(*find(overlay, global->first), Role::global, Elem::f32, 1, 1));
    m.parts.back().value = global->second;
    if (recipe::find_recipe(m.make->recipe)->global_divides) m.parts.back().form = ir::ScaleForm::divide;
  }
  if (const TensorInfo* t = find(overlay, "scale:" + m.path); t != nullptr) m.parts.push_back(stored(*t, Role::scale, t->dtype, m.n, groups(*t)));
  if (const TensorInfo* t = find(overlay, "zero:" + m.path); t != nullptr) m.parts.push_back(stored(*t, Role::zero, t->dtype, m.n, groups(*t)));
  if (const TensorInfo* t = find(overlay, "order:" + m.path); t != nullptr) {
    m.parts.push_back(stored(*t, Role::order, t->dtype, 1, m.k));
    m.scheme->features.actorder = true;
  }
  m.make.reset();
}

void give_codes(ir::Checkpoint& c, const Overlay& overlay) {
  for (ir::Module& m : c.modules) give_codes(m, overlay);
}

}  // namespace qb::pass
