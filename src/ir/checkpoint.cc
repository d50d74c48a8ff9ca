#include "ir/checkpoint.h"

#include <utility>

namespace qb::ir {

bool is_factor(Role role) {
  switch (role) {
    case Role::scale:
    case Role::global:
    case Role::input_scale:
    case Role::output_scale:
    case Role::prescale:
    case Role::stage:
    case Role::k_scale:
    case Role::v_scale:
    case Role::calibration:
      return true;
    default:
      return false;
  }
}

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
    case Role::order:
      return "order";
    case Role::shape:
      return "shape";
    case Role::input_scale:
      return "input_scale";
    case Role::input_zero:
      return "input_zero";
    case Role::output_scale:
      return "output_scale";
    case Role::output_zero:
      return "output_zero";
    case Role::prescale:
      return "prescale";
    case Role::lowrank_a:
      return "lowrank_a";
    case Role::lowrank_b:
      return "lowrank_b";
    case Role::stage:
      return "stage";
    case Role::bias:
      return "bias";
    case Role::k_scale:
      return "k_scale";
    case Role::v_scale:
      return "v_scale";
    case Role::k_bias:
      return "k_bias";
    case Role::v_bias:
      return "v_bias";
    case Role::calibration:
      return "calibration";
    case Role::calibration_other:
      return "calibration_other";
    case Role::plain:
      return "plain";
  }
  return "";
}

std::string whole_name(const Stored& s) {
  return !s.as.empty() ? s.as : s.mask.tensor.empty() ? s.tensor : s.mask.whole;
}

std::vector<int64_t> whole_shape(const Stored& s) {
  return s.mask.tensor.empty() ? s.shape : std::vector{s.view.dims[0], s.view.dims[1]};
}

Stored stored(const TensorInfo& t, Role role, Elem elem, View view) {
  return {.role = role,
          .tensor = t.name,
          .file = t.file,
          .offset = t.offset,
          .bytes = t.bytes,
          .container = t.dtype,
          .elem = elem,
          .shape = t.shape,
          .view = std::move(view)};
}

View row_major(int64_t rows, int64_t cols, int bits) {
  return {{rows, cols}, {cols * bits, bits}, 0};
}

View transposed(View v) {
  std::swap(v.dims[0], v.dims[1]);
  std::swap(v.stride[0], v.stride[1]);
  std::swap(v.lanes[0], v.lanes[1]);
  std::swap(v.words[0], v.words[1]);
  std::swap(v.repeat[0], v.repeat[1]);
  v.along = static_cast<uint8_t>(1 - v.along);
  for (View& part : v.parts) part = transposed(std::move(part));
  if (v.parts.empty()) v.along = 0;
  return v;
}

std::string to_string(const KvCache& kv) {
  return "kv:" + to_string(kv.scheme) + (kv.per_head ? "+head" : "") + (kv.affine ? "+affine" : "");
}

View nibbles(int64_t rows, int64_t cols, Nibbles order) {
  View v{.dims = {rows, cols}};
  if (order == Nibbles::row_pairs) {
    v.stride = {cols * 8, 8};
    v.lanes[0] = {.count = 2, .bit = {0, 4}};
  } else {
    v.stride = {cols / 2 * 8, 8};
    v.lanes[1] = {.count = 2, .bit = {4, 0}};
    v.offset_binary = true;
  }
  return v;
}

std::optional<View> packed_words(int64_t rows, int64_t cols, int bits, int axis, int64_t words) {
  const auto along = static_cast<size_t>(axis);
  const int64_t count = axis == 0 ? rows : cols;
  const int whole = 32 / bits;  // codes that a word holds without the rest of another
  View v{.dims = {rows, cols}};
  v.offset_binary = true;
  v.stride[along] = bits;
  if (words != dense_words(count, bits)) {
    if (whole > 16 || words != (count + whole - 1) / whole) return std::nullopt;
    v.stride[along] = 32;
    v.lanes[along].count = whole;
    for (int i = 0; i < whole; ++i) v.lanes[along].bit[static_cast<size_t>(i)] = static_cast<uint8_t>(i * bits);
  }
  v.stride[1 - along] = axis == 0 ? 32 : words * 32;
  if (axis == 0 && cols > 1) v.words[0] = cols * 32;
  return v;
}

}  // namespace qb::ir
