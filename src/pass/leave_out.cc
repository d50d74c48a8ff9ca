#include "pass/leave_out.h"

#include <map>

namespace qb::pass {

bool leave_out_calibration(ir::Checkpoint& c) {
  size_t left_out = 0;
  const auto measured = [](const ir::Stored& s) { return s.role == ir::Role::calibration || s.role == ir::Role::calibration_other; };
  for (ir::Module& m : c.modules) left_out += std::erase_if(m.parts, measured);
  return left_out > 0;
}

std::vector<Densified> leave_out_sparsity(ir::Checkpoint& c) {
  std::map<std::string, Densified> by_scheme;
  for (ir::Module& m : c.modules) {
    const ir::Stored* code = m.part(ir::Role::code);
    if (code == nullptr || code->mask.tensor.empty() || !code->mask.starts.empty()) continue;
    const ir::Scheme before = m.scheme.value_or(ir::Scheme{.weight = {.code = code->elem}, .input = {}, .features = {.sparse24 = true}});
    ir::Scheme after = before;
    after.features.sparse24 = false;
    if (m.scheme) m.scheme = after;
    Densified& d = by_scheme[to_string(before)];
    d.from = to_string(before);
    d.to = to_string(after);
    d.modules.push_back(m.path);
  }
  std::vector<Densified> out;
  for (auto& [scheme, d] : by_scheme) out.push_back(std::move(d));
  return out;
}

}  // namespace qb::pass
