// ModelOpt's algorithms on the experts of gpt-oss and Llama 4, which stay stacked: [experts, inputs, outputs], named after the parameter ("<path>",
// "<path>_weight_scale").
//
// Source of truth: what export_hf_checkpoint of nvidia-modelopt 0.47 writes. It turns the experts for NVFP4 alone, so that groups and pairs of nibbles run
// along the inputs; the blocks of MX and of W4A8_NVFP4_FP8 run along the outputs, which no kernel of other engines takes. What it writes for fp8_pb_wo has
// scales that do not belong to the codes, and is refused. FP8_PER_CHANNEL_PER_TOKEN has one scale for each expert.
#pragma once

#include "dialect/modelopt_rows.h"

namespace qb::modelopt {

struct StackKind {
  std::string_view label;
  std::string_view meaning;                 // of one expert's weight as a linear, with the usual group
  bool own_scale = false;                   // as in ir::Stack
  std::span<const PartRow> own_parts = {};  // where the tensors are others than the linears'
  std::span<const PartRow> parts() const { return own_parts.empty() ? rows_of(label).front().parts : own_parts; }
};

// How the algorithm stores stacked experts, with static activation scales or without; null where it cannot.
const StackKind* stack_kind(std::string_view label, bool has_input);
// The one that stores a stack as it is; null when none does.
const StackKind* stack_kind(const ir::Module& stack);
// The scheme of one expert with the groups that a label has.
ir::Scheme meaning_of(const StackKind&, int32_t group);

}  // namespace qb::modelopt
