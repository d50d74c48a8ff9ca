#include "ir/stack.h"

#include <optional>
#include <utility>

#include "ir/region.h"

namespace qb::ir {
namespace {

// Rows of one expert's part as it is stored.
int64_t rows_each(const Module& m) {
  return m.n / m.stack.experts;
}

Block turned(Block b, int64_t rows) {
  if (b == Block{0, 0}) return b;
  return {b.cols == 0 ? static_cast<int32_t>(rows) : b.cols, b.rows};
}

// Whether a part has rows for each expert, as codes and their scales have. Numbers that the experts share do not.
bool is_stacked(const Module& m, const Stored& s) {
  const bool grid = s.role == Role::code || s.role == Role::scale;
  return grid && (s.view.dims[0] > 1 || m.stack.experts == 1) && s.view.dims[0] % m.stack.experts == 0;
}

// Where an expert's rows begin, in bits. Experts begin at whole units of lanes.
int64_t expert_bits(const View& v, int64_t experts) {
  return v.dims[0] / experts / v.lanes[0].count * v.stride[0];
}

View swapped(const View& v, int64_t rows) {
  View t = v;
  t.dims[0] = rows;
  return transposed(std::move(t));
}

// Of the rows every step-th from `first` on.
void take_rows(View& v, int64_t first, int64_t step) {
  v.offset += first * v.stride[0];
  v.stride[0] *= step;
  v.dims[0] /= step;
}

}  // namespace

Stored swapped(Stored s) {
  if (s.joined.empty()) {
    s.view = transposed(std::move(s.view));
    return s;
  }
  std::swap(s.view.dims[0], s.view.dims[1]);
  s.join.along = static_cast<uint8_t>(1 - s.join.along);
  for (Stored& part : s.joined) part = swapped(std::move(part));
  return s;
}

QuantType stored_type(const Module& m) {
  QuantType t = m.scheme->weight;
  if (m.stack.experts == 0) return t;
  if (t.block == Block{0, 0} && m.stack.own_scale)
    t.block = {static_cast<int32_t>(rows_each(m)), 0};
  else if (m.stack.inputs_first)
    t.block = turned(t.block, rows_each(m));
  return t;
}

Module turned(const Module& stack) {
  Module m = stack;
  const int64_t experts = stack.stack.experts;
  m.stack.inputs_first = !stack.stack.inputs_first;
  m.k = rows_each(stack);
  m.n = experts * stack.k;
  for (Stored& s : m.parts) {
    if (!is_stacked(stack, s)) continue;
    if (!s.joined.empty()) {  // of the experts
      for (Stored& part : s.joined) part = swapped(std::move(part));
      s.view.dims = {s.view.dims[1] * experts, s.view.dims[0] / experts};
      continue;
    }
    const View v = s.view;
    s.view = swapped(v, v.dims[0] / experts);
    s.view.piece = s.view.dims[0];
    s.view.next_piece = expert_bits(v, experts);
    s.view.dims[0] *= experts;
  }
  return m;
}

Module expert_of(const Module& stack, int64_t expert, int64_t first, int64_t step) {
  Module m{.path = stack.path, .kind = arch::Kind::linear};
  const int64_t experts = stack.stack.experts, rows = rows_each(stack);
  m.n = (stack.stack.inputs_first ? stack.k : rows) / step;
  m.k = stack.stack.inputs_first ? rows : stack.k;
  m.scheme = stack.scheme;
  m.why = stack.why;
  const int32_t outputs_per_scale = m.scheme ? m.scheme->weight.block.rows : 1;
  if (outputs_per_scale > 1) m.scheme->weight.block.rows = static_cast<int32_t>(outputs_per_scale / step);
  for (Stored s : stack.parts) {
    View& v = s.view;
    const bool own = s.role == Role::bias || is_stacked(stack, s);
    if (own && s.joined.size() == static_cast<size_t>(experts)) {
      s = Stored(std::move(s.joined[static_cast<size_t>(expert)]));
      if (s.role == Role::bias || stack.stack.inputs_first) s = swapped(std::move(s));
      if (!s.joined.empty() && s.join == Join{0, true} && s.joined.size() == static_cast<size_t>(step))
        s = Stored(std::move(s.joined[static_cast<size_t>(first)]));
    } else if (own) {
      const int64_t each = v.dims[0] / experts;
      if (std::optional<View> mine = some(v, 0, {expert * each, (expert + 1) * each})) v = std::move(*mine);
      const bool bias = s.role == Role::bias;  // [experts, outputs]: a column of them
      if (bias || stack.stack.inputs_first) v = transposed(std::move(v));
      if (bias && v.parts.empty()) v.stride[1] = v.stride[0];
      if (bias || s.role == Role::code || outputs_per_scale == 1) take_rows(v, first, step);
    }
    m.parts.push_back(std::move(s));
  }
  return m;
}

std::string tensor_name(const Module& m, std::string_view word) {
  if (m.kind != arch::Kind::expert) return m.path + "." + std::string(word);
  return word == "weight" ? m.path : m.path + "_" + std::string(word);
}

}  // namespace qb::ir
