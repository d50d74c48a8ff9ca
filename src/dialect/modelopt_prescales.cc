#include "dialect/modelopt_prescales.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "dialect/modelopt_rows.h"

namespace qb::modelopt {
namespace {

// Of whose factors the label tells that there are some.
bool promises(std::string_view label) {
  return algorithm_of(rows_of(label).front()).marked;
}
bool folds_into_linears(std::string_view label) {
  return label == "NVFP4_AWQ";
}

}  // namespace

void check_prescales(Reading& r, const std::function<std::string_view(const ir::Module&)>& label_of) {
  const auto topology_of = [&](const ir::Module& m) -> const arch::Module& { return r.out.topology.modules[static_cast<size_t>(m.topology)]; };
  std::vector<std::pair<const ir::Module*, std::string_view>> scaled;  // with their labels
  std::set<std::string_view> with;                                     // labels of which some module has factors
  std::map<std::string_view, int> readers;                             // of norms
  for (const ir::Module& m : r.out.modules) {
    const arch::Module& t = topology_of(m);
    if (m.kind != arch::Kind::linear || t.structural || t.layer < 0) continue;
    if (!t.exempt && !t.input_norm.empty()) ++readers[t.input_norm];
    if (!m.scheme) continue;
    const std::string_view label = label_of(m);
    if (label.empty() || !algorithm_of(rows_of(label).front()).prescale) continue;
    scaled.emplace_back(&m, label);
    if (m.part(ir::Role::prescale) != nullptr || promises(label)) with.insert(label);
  }
  for (const auto& [m, label] : scaled) {
    if (m->part(ir::Role::prescale) != nullptr || !with.contains(label)) continue;
    const arch::Module& t = topology_of(*m);
    const ir::Module* feeder = t.fed_by.empty() ? nullptr : r.module(t.fed_by);
    const bool into_norm = !t.input_norm.empty() && readers[t.input_norm] > 1;
    const bool into_linear = folds_into_linears(label) && feeder != nullptr && feeder->n == m->k;
    if (into_norm || into_linear) continue;
    r.diag.report("prescale-missing", {.tensor = m->path + ".pre_quant_scale", .module = m->path}, "absent",
                  fmt::format("factors of its {} inputs, as {} has where nothing before the linear takes them up", m->k, label));
  }
}

}  // namespace qb::modelopt
