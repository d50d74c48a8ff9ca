#include "pass/settle.h"

#include <fmt/format.h>

#include <algorithm>

namespace qb::pass {
namespace {

void drop(ir::Module& m, ir::Role role) {
  m.parts.erase(std::remove_if(m.parts.begin(), m.parts.end(), [role](const ir::Stored& s) { return s.role == role; }), m.parts.end());
}

bool open_zeros(const ir::Module& m) {
  return m.scheme && m.scheme->weight.zero == ir::Zero::none && m.part(ir::Role::zero) != nullptr;
}

Result<void> settle_zeros(ir::Module& m, Surveyor& surveyor, Diagnostics& diag) {
  const ir::Stored& zero = *m.part(ir::Role::zero);
  QB_ASSIGN(const prog::SurveyResult r, surveyor.ask({.kind = prog::SurveyKind::integers, .input = prog::input_of(zero, 1)}));
  if (r.zero == r.count) {
    drop(m, ir::Role::zero);
    return {};
  }
  diag.report("zero-point-mismatch", {.tensor = zero.tensor, .module = m.path},
              fmt::format("{} of {} zero points are not in the middle", r.count - r.zero, r.count), "symmetric integers, as the config says");
  m.scheme->weight.zero = ir::Zero::code;
  return {};
}

Result<void> settle_order(ir::Module& m, Surveyor& surveyor, Diagnostics& diag) {
  const ir::Stored& order = *m.part(ir::Role::order);
  QB_ASSIGN(const prog::SurveyResult r, surveyor.ask({.kind = prog::SurveyKind::order, .input = prog::input_of(order, 1), .type = m.scheme->weight}));
  const Place place{.tensor = order.tensor, .module = m.path};
  if (r.dead > 0) {
    diag.report("group-order-invalid", place, fmt::format("{} columns in groups that are not there, the first is column {}", r.dead, r.first_bad),
                "for each column a group that has a scale");
  } else if (r.inexact == 0) {
    m.scheme->features.actorder = false;
    drop(m, ir::Role::order);
  } else if (!m.scheme->features.actorder) {
    diag.report("group-order-mismatch", place, fmt::format("{} columns in other groups than their places", r.inexact),
                "groups in the columns' order, as the config says");
    m.scheme->features.actorder = true;
  }
  return {};
}

}  // namespace

bool is_settled(const ir::Checkpoint& c) {
  return std::none_of(c.modules.begin(), c.modules.end(), [](const ir::Module& m) { return open_zeros(m) || m.part(ir::Role::order) != nullptr; });
}

Result<void> settle(ir::Checkpoint& c, Surveyor& surveyor, Diagnostics& diag) {
  for (ir::Module& m : c.modules) {
    if (open_zeros(m)) QB_TRY(settle_zeros(m, surveyor, diag));
    if (m.scheme && m.part(ir::Role::order) != nullptr) QB_TRY(settle_order(m, surveyor, diag));
  }
  return {};
}

}  // namespace qb::pass
