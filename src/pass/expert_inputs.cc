// An expert that no calibration sample reached has no scale for its inputs: it takes the largest one that the same projection has in the layer's other experts,
// so that nothing is clamped there that is not clamped elsewhere. That is a guess, and made only when asked for.
#include <fmt/format.h>

#include "pass/repair.h"

namespace qb::pass {
namespace {

using ir::Role;

const ir::Stored* largest_of_others(const ir::Checkpoint& c, const arch::Module& t) {
  const ir::Stored* largest = nullptr;
  for (const ir::Module& m : c.modules) {
    if (m.topology < 0) continue;
    const arch::Module& other = c.topology.modules[static_cast<size_t>(m.topology)];
    if (other.layer != t.layer || other.of_experts != t.of_experts) continue;
    const ir::Stored* s = m.part(Role::input_scale);
    if (s == nullptr || !s->value || !(*s->value > 0)) continue;
    if (largest == nullptr || ir::multiplier(*s) > ir::multiplier(*largest)) largest = s;
  }
  return largest;
}

Result<void> run(ir::Checkpoint& c, const RepairContext& context, Diagnostics& diag, std::vector<Repaired>& done) {
  if (context.allowed != Repair::lossy) return {};
  std::vector<std::pair<size_t, ir::Stored>> found;  // added at the end: a guess is no sibling to guess by
  for (size_t i = 0; i < c.modules.size(); ++i) {
    const ir::Module& m = c.modules[i];
    const bool fixed = m.scheme && m.scheme->input && m.scheme->input->when == ir::When::fixed;
    if (m.topology < 0 || !fixed || m.part(Role::code) == nullptr || m.part(Role::input_scale) != nullptr) continue;
    const arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
    const ir::Stored* largest = t.of_experts.empty() ? nullptr : largest_of_others(c, t);
    if (largest == nullptr) continue;
    found.emplace_back(i, *largest);
    mark(diag, "input-scale-missing", m.path, Repair::lossy, true);
    done.push_back(
        {"input-scale-missing", {m.path}, std::nullopt, fmt::format("{} = {}, the largest of the layer's other experts", largest->tensor, *largest->value)});
  }
  for (auto& [i, scale] : found) c.modules[i].parts.push_back(std::move(scale));
  return {};
}

}  // namespace

// clang-format off
QB_REPAIR(expert_inputs) = {.name = "expert_inputs", .rank = 1, .run = run};
// clang-format on

}  // namespace qb::pass
