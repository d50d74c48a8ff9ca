#include "arch/joined.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "arch/structure.h"

namespace qb::arch {
namespace {

using Groups = std::vector<std::vector<size_t>>;

Groups groups(std::span<const Module> modules, std::string Module::*word, size_t least) {
  std::map<std::string_view, size_t> known;
  Groups all;
  for (size_t i = 0; i < modules.size(); ++i) {
    const std::string& name = modules[i].*word;
    if (name.empty() || !modules[i].parts.empty()) continue;
    const auto [at, fresh] = known.try_emplace(name, all.size());
    if (fresh) all.emplace_back();
    all[at->second].push_back(i);
  }
  std::erase_if(all, [least](const std::vector<size_t>& group) { return group.size() < least; });
  return all;
}

// What the whole has of its parts, as the first has it.
Module whole_of(std::vector<Module> parts, std::string path) {
  Module m = parts.front();
  m.path = std::move(path);
  m.fused.clear();
  m.stacked.clear();
  m.fed_by.clear();
  m.optional = std::all_of(parts.begin(), parts.end(), [](const Module& p) { return p.optional; });
  m.parts = std::move(parts);
  return m;
}

bool has_tensor(std::span<const TensorInfo> tensors, std::string_view name) {
  const auto it = std::lower_bound(tensors.begin(), tensors.end(), name, [](const TensorInfo& t, std::string_view n) { return t.name < n; });
  return it != tensors.end() && it->name == name;
}

// Scales of a KV cache lie under projections, whichever form those have: the weight says it.
bool has_weight(std::span<const TensorInfo> tensors, const std::string& path) {
  for (const char* word : {".weight", ".weight_packed", ".qweight", ".compressed"})
    if (has_tensor(tensors, path + word)) return true;
  return false;
}

// Of a parameter, whose tensors are "<path>", "<path>_bias" and the like.
bool has_parameter(std::span<const TensorInfo> tensors, std::string_view path) {
  const auto it = std::lower_bound(tensors.begin(), tensors.end(), path, [](const TensorInfo& t, std::string_view p) { return t.name < p; });
  return std::any_of(it, std::find_if(it, tensors.end(), [path](const TensorInfo& t) { return !t.name.starts_with(path); }),
                     [path](const TensorInfo& t) { return t.name.size() == path.size() || t.name[path.size()] == '_'; });
}

// Each of these groups as what `join` makes of it, in the place of its first member.
template <class Join>
std::vector<Module> replace(std::vector<Module> modules, const Groups& chosen, const Join& join) {
  std::vector<Module> out;
  std::vector<bool> gone(modules.size());
  std::map<size_t, const std::vector<size_t>*> first;
  for (const std::vector<size_t>& group : chosen) {
    first.emplace(group.front(), &group);
    for (size_t i : group) gone[i] = true;
  }
  for (size_t i = 0; i < modules.size(); ++i) {
    if (const auto at = first.find(i); at != first.end()) {
      std::vector<Module> parts;
      for (size_t p : *at->second) parts.push_back(std::move(modules[p]));
      out.push_back(join(std::move(parts)));
    } else if (!gone[i]) {
      out.push_back(std::move(modules[i]));
    }
  }
  return out;
}

}  // namespace

std::vector<std::vector<size_t>> fusable(std::span<const Module> modules) {
  return groups(modules, &Module::fused, 2);
}

std::vector<std::vector<size_t>> stackable(std::span<const Module> modules) {
  return groups(modules, &Module::stacked, 1);
}

Module fused(std::vector<Module> parts) {
  std::string path = parts.front().fused;
  Module m = whole_of(std::move(parts), std::move(path));
  m.n = 0;
  m.split.parts = {};
  for (size_t i = 0; i < m.parts.size(); ++i) {
    m.n += m.parts[i].n;
    if (i < m.split.parts.size()) m.split.parts[i] = m.parts[i].split.parts.front();
  }
  return m;
}

Module stacked(std::vector<Module> parts, const Family& family) {
  std::string path = parts.front().stacked;
  Module m = whole_of(std::move(parts), std::move(path));
  const int64_t first = m.parts.front().expert;
  m.kind = Kind::expert;
  m.expert = -1;
  m.of_experts = {};
  m.n = 0;
  int64_t each = 0;
  for (const Module& p : m.parts)
    if (p.expert == first) {
      m.n += p.n;
      if (!family.interleaved && each > 0) m.split.parts[static_cast<size_t>(std::min<int64_t>(each, 2))] = p.split.parts.front();
      ++each;
    }
  m.interleaved = family.interleaved && each > 1;
  if (m.interleaved) m.split.unit *= each;
  m.inputs_first = family.inputs_first;
  return m;
}

std::vector<Module> as_stored(std::vector<Module> modules, const Family& family, std::span<const TensorInfo> tensors) {
  const auto chosen = [&](Groups groups, std::string Module::*word, bool usual, bool parameter) {
    std::erase_if(groups, [&](const std::vector<size_t>& group) {
      const std::string& whole = modules[group.front()].*word;
      const bool joined = parameter ? has_parameter(tensors, whole) : has_tensors(tensors, whole);
      if (!joined && !usual) return true;
      return std::any_of(group.begin(), group.end(), [&](size_t i) {
        const Module& m = modules[i];
        return has_weight(tensors, m.path) || (parameter && !m.fused.empty() && has_weight(tensors, m.fused));
      });
    });
    return groups;
  };
  Groups stacks = chosen(stackable(modules), &Module::stacked, family.usual.experts, true);
  if (!stacks.empty()) modules = replace(std::move(modules), stacks, [&family](std::vector<Module> parts) { return stacked(std::move(parts), family); });
  Groups matrices = chosen(fusable(modules), &Module::fused, family.usual.projections, false);
  if (!matrices.empty()) modules = replace(std::move(modules), matrices, fused);
  return modules;
}

}  // namespace qb::arch
