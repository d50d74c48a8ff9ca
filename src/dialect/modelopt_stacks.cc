#include "dialect/modelopt_stacks.h"

namespace qb::modelopt {
namespace {

using ir::Role;

// Pairs of nibbles lie along the inputs.
constexpr PartRow nvfp4[] = {
    {.role = Role::code, .suffix = "weight", .container = Elem::u8, .rank = Rank::matrix, .packing = Packing::row_pairs},
    {.role = Role::scale, .suffix = "weight_scale", .container = Elem::e4m3, .rank = Rank::grid},
    {.role = Role::global, .suffix = "weight_scale_2", .container = Elem::f32, .rank = Rank::scalar0},
    {.role = Role::input_scale, .suffix = "input_scale", .container = Elem::f32, .rank = Rank::scalar0},
};

constexpr StackKind table[] = {
    {"FP8", "fp8_tensor:fp8_tensor_static"},
    {"FP8", "fp8_tensor"},
    {"FP8_PER_CHANNEL_PER_TOKEN", "fp8_tensor:fp8_token", true},
    {"NVFP4", "nvfp4:nvfp4", false, nvfp4},
    {"W4A16_NVFP4", "nvfp4", false, nvfp4},
    {"mxfp4", "fp4_32x1@e8m0"},
    {"MXFP8", "fp8_32x1@e8m0:mxfp8_up"},
    {"W4A8_MXFP4_FP8", "fp4_32x1@e8m0:fp8_tensor_dyn"},
    {"W4A8_MXFP4_FP8", "fp4_32x1@e8m0:fp8_tensor_static"},
    {"W4A8_NVFP4_FP8", "fp4_32x1@e4m3:fp8_tensor_static"},
};

}  // namespace

const StackKind* stack_kind(std::string_view label, bool has_input) {
  const StackKind* found = nullptr;
  for (const StackKind& kind : table) {
    if (kind.label != label) continue;
    const ir::Scheme s = meaning_of(kind, 0);
    if ((s.input && s.input->when == ir::When::fixed) == has_input) return &kind;
    if (found == nullptr) found = &kind;
  }
  return found;
}

const StackKind* stack_kind(const ir::Module& m) {
  if (!m.stack.inputs_first) return nullptr;
  for (const StackKind& kind : table) {
    const ir::Block block = m.scheme->weight.block;
    if (meaning_of(kind, block.rows > 1 ? block.rows : block.cols) == *m.scheme && kind.own_scale == m.stack.own_scale) return &kind;
  }
  return nullptr;
}

ir::Scheme meaning_of(const StackKind& kind, int32_t group) {
  ir::Scheme s = *ir::parse_scheme(kind.meaning);
  if (group > 0 && s.weight.two_level()) (s.weight.block.rows == 1 ? s.weight.block.cols : s.weight.block.rows) = group;
  if (s.input && s.input->type.two_level()) s.input->type.block = s.weight.block;
  return s;
}

}  // namespace qb::modelopt
