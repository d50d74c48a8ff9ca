#include "pass/repair.h"

#include <algorithm>

namespace qb::pass {

Result<void> repair(ir::Checkpoint& c, const RepairContext& context, Diagnostics& diag, std::vector<Repaired>& done) {
  if (context.allowed == Repair::none) return {};
  std::vector<const RepairPass*> ordered(repairs().begin(), repairs().end());
  std::sort(ordered.begin(), ordered.end(), [](const RepairPass* a, const RepairPass* b) { return a->rank < b->rank; });
  for (const RepairPass* pass : ordered) QB_TRY(pass->run(c, context, diag, done));
  return {};
}

void mark(Diagnostics& diag, std::string_view code, std::string_view module, Repair level, bool done) {
  for (Problem& p : diag.all()) {
    if (p.code != code || p.module != module) continue;
    p.repair = level;
    if (done) p.severity = Severity::warning;
  }
}

}  // namespace qb::pass
