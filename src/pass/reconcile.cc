// Scalars that engines share over a fused matrix become one number: the largest. Second-level scales hand the rest to their block scales, whose codes stay;
// scales of inputs change no weight.
#include <fmt/format.h>

#include <algorithm>

#include "pass/repair.h"

namespace qb::pass {
namespace {

using ir::Role;

// Taken from the stored numbers, so that reciprocals are not rounded on the way.
double ratio(const ir::Stored& own, const ir::Stored& largest) {
  if (own.form == ir::ScaleForm::divide && largest.form == ir::ScaleForm::divide) return *largest.value / *own.value;
  return ir::multiplier(own) / ir::multiplier(largest);
}

ir::Stored& part(ir::Module& m, Role role) {
  return *std::find_if(m.parts.begin(), m.parts.end(), [role](const ir::Stored& s) { return s.role == role; });
}

// The module's block scales as they are beside the largest second-level scale.
ir::Stored rescaled(const ir::Checkpoint& c, const ir::FusedMismatch& f, size_t member) {
  ir::Stored scale = *c.modules[member].part(Role::scale);
  scale.times *= ratio(*c.modules[member].part(f.role), *c.modules[f.largest].part(f.role));
  return scale;
}

bool has_block_scales(const ir::Checkpoint& c, const ir::FusedMismatch& f) {
  return std::all_of(f.group.begin(), f.group.end(), [&](size_t i) { return c.modules[i].part(Role::scale) != nullptr; });
}

Result<void> run(ir::Checkpoint& c, const RepairContext& context, Diagnostics& diag, std::vector<Repaired>& done) {
  for (const ir::FusedMismatch& f : ir::fused_mismatches(c)) {
    const std::string& fused = ir::fused_name(c, f);
    const ir::Stored largest = *c.modules[f.largest].part(f.role);
    const bool global = f.role == Role::global;
    double error = 0;
    if (global) {
      if (!has_block_scales(c, f)) continue;  // reported by whoever read it
      QB_ASSIGN(error, reconcile_error(c, f, context.surveyor));
    }
    const bool allowed = error == 0 || context.allowed == Repair::lossy;
    const char* code = global ? "fused-scale-mismatch" : "fused-input-scale-mismatch";
    mark(diag, code, fused, error == 0 ? Repair::exact : Repair::lossy, allowed);
    if (!allowed) continue;
    for (size_t i : f.group) {
      if (global) part(c.modules[i], Role::scale) = rescaled(c, f, i);
    }
    for (size_t i : f.group) part(c.modules[i], f.role) = largest;
    done.push_back({code,
                    {fused},
                    error,
                    fmt::format("{} of {} = {} is that of all{}", ir::to_string(f.role), largest.tensor, *largest.value,
                                global ? "; block scales took up the difference" : "")});
  }
  return {};
}

}  // namespace

Result<double> reconcile_error(const ir::Checkpoint& c, const ir::FusedMismatch& f, Surveyor& surveyor) {
  double error = 0;
  for (size_t i : f.group) {
    if (c.modules[i].part(Role::scale) == nullptr) continue;
    const ir::Stored scale = rescaled(c, f, i);
    if (!scale.changed()) continue;
    QB_ASSIGN(const prog::SurveyResult r, surveyor.ask({.kind = prog::SurveyKind::rounding, .input = prog::input_of(scale, 1)}));
    error = std::max(error, r.error);
  }
  return error;
}

// clang-format off
QB_REPAIR(reconcile) = {.name = "reconcile", .rank = 2, .run = run};
// clang-format on

}  // namespace qb::pass
