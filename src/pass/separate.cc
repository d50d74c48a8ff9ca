// Matrices taken apart.
#include <fmt/format.h>

#include <map>
#include <utility>

#include "ir/parts.h"
#include "pass/forms.h"

namespace qb::pass {
namespace {

bool is_named(const arch::Module& t, arch::Joined which) {
  return !t.parts.empty() && (t.kind == arch::Kind::expert ? which.experts : which.projections);
}

// What modules a pass has made, in the order of the model.
struct Made {
  std::vector<arch::Module> topology;
  std::vector<ir::Module> modules;
  void add(arch::Module t, ir::Module m) {
    m.topology = static_cast<int>(topology.size());
    topology.push_back(std::move(t));
    modules.push_back(std::move(m));
  }
};

}  // namespace

bool is_family_known(const ir::Checkpoint& c, Diagnostics& diag) {
  if (c.topology.family != nullptr) return true;
  diag.report("form-inexpressible", {.file = "config.json"}, fmt::format("model_type {}", escape(c.topology.model_type)),
              "a known family: what belongs together is not known");
  return false;
}

bool has_joined(const ir::Checkpoint& c, arch::Joined which) {
  for (const arch::Module& t : c.topology.modules)
    if (is_named(t, which)) return true;
  return false;
}

bool separate(ir::Checkpoint& c, arch::Joined which, std::vector<Reformed>& done, std::vector<SmallerBlocks>& smaller, Diagnostics& diag) {
  if ((which.projections || which.experts) && !is_family_known(c, diag)) return false;
  if (!has_joined(c, which)) return true;
  Made out;
  std::map<bool, Reformed> reformed;  // by whether they are experts
  std::map<std::string, SmallerBlocks> blocks;
  size_t refused = 0;
  Problem* first = nullptr;
  for (ir::Module& m : c.modules) {
    if (m.topology < 0 || !is_named(c.topology.modules[static_cast<size_t>(m.topology)], which)) continue;
    const arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
    const std::string why = m.parts.empty() ? std::string() : ir::inseparable_by(m, t);
    if (why.empty()) continue;
    if (refused++ == 0)
      first =
          &diag.report("form-inexpressible", {.tensor = m.part(ir::Role::code) != nullptr ? m.part(ir::Role::code)->tensor : std::string(), .module = m.path},
                       fmt::format("{} cannot be cut between its parts: {}", m.scheme ? to_string(*m.scheme) : "the matrix", why),
                       "parts that end where blocks, groups and words of codes do");
  }
  if (refused > 1) first->found += fmt::format(" (and {} more like it)", refused - 1);
  if (refused > 0) return false;
  for (ir::Module& m : c.modules) {
    if (m.topology < 0) {
      out.modules.push_back(std::move(m));
      continue;
    }
    arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
    if (!is_named(t, which)) {
      out.add(std::move(t), std::move(m));
      continue;
    }
    const bool experts = t.kind == arch::Kind::expert;
    Reformed& r = reformed[experts];
    if (!m.parts.empty()) r.modules.push_back(m.path);
    for (size_t i = 0; i < t.parts.size(); ++i) {
      ir::Module part{.path = t.parts[i].path, .kind = t.parts[i].kind};
      if (!m.parts.empty()) {
        part = *ir::part_of(m, t, i);
        ++r.into;
        if (part.scheme != m.scheme) {
          SmallerBlocks& change = blocks[ir::to_string(*m.scheme) + " " + ir::to_string(*part.scheme)];
          change.from = *m.scheme;
          change.to = *part.scheme;
          change.modules.push_back(part.path);
        }
      }
      out.add(t.parts[i], std::move(part));
    }
  }
  for (auto& [experts, r] : reformed) {
    r.how = experts ? "each expert's linears by themselves, as other views of the stacks" : "each projection by itself, as rows of the matrix that held them";
    if (r.into > 0) done.push_back(std::move(r));
  }
  for (auto& [key, change] : blocks) smaller.push_back(std::move(change));
  c.topology.modules = std::move(out.topology);
  c.modules = std::move(out.modules);
  return true;
}

}  // namespace qb::pass
