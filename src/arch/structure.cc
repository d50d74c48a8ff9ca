#include "arch/structure.h"

#include <algorithm>
#include <map>
#include <string>
#include <unordered_set>

namespace qb::arch {
namespace {

std::string_view parent_of(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == path.npos ? std::string_view() : path.substr(0, dot);
}
std::string_view last_of(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == path.npos ? path : path.substr(dot + 1);
}
bool one_of(std::string_view word, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

Kind kind_of(std::string_view path, std::span<const TensorInfo* const> tensors) {
  for (const TensorInfo* t : tensors) {
    const std::string_view word = last_of(t->name);
    if (!one_of(word, {"weight", "weight_packed", "qweight"})) continue;
    if (t->shape.size() == 1) return Kind::norm;
    if (t->shape.size() != 2) return Kind::other;
    const std::string_view name = last_of(path);
    return name.find("embed") != name.npos || one_of(name, {"wte", "wpe"}) ? Kind::embedding : Kind::linear;
  }
  return Kind::other;
}

bool is_projection(std::string_view name) {
  return one_of(name, {"q_proj", "k_proj", "v_proj", "qkv_proj", "kv_proj", "query_key_value", "c_attn", "qkv"});
}

}  // namespace

bool has_tensors(std::span<const TensorInfo> tensors, std::string_view path) {
  const std::string prefix = std::string(path) + ".";
  const auto it = std::lower_bound(tensors.begin(), tensors.end(), prefix, [](const TensorInfo& t, const std::string& p) { return t.name < p; });
  return it != tensors.end() && it->name.starts_with(prefix);
}

bool is_quantization_word(std::string_view last) {
  for (std::string_view prefix : {"weight_", "input_", "output_", "activation_"})
    if (last.starts_with(prefix)) return true;
  return one_of(last, {"qweight", "qzeros", "scales", "g_idx", "compressed", "bitmask", "pre_quant_scale", "q_scale", "k_scale", "v_scale", "kv_scale",
                       "k_bias", "v_bias"});
}

void add_by_structure(std::span<const TensorInfo> tensors, std::string_view except, Topology& out) {
  std::unordered_set<std::string> known;  // whatever lies under these is theirs
  for (const Module& m : out.modules)
    if (m.kind != Kind::attention) known.insert(m.path);
  const auto owned = [&](std::string_view path) {
    for (; !path.empty(); path = parent_of(path))
      if (known.contains(std::string(path))) return true;
    return false;
  };
  std::map<std::string_view, std::vector<const TensorInfo*>> paths;
  for (const TensorInfo& t : tensors)
    if (!parent_of(t.name).empty() && (except.empty() || !t.name.starts_with(except))) paths[parent_of(t.name)].push_back(&t);
  // Linears first: what lies under one is a part of it.
  std::map<std::string_view, Kind> found;
  for (const auto& [path, members] : paths) {
    if (owned(path)) continue;
    const Kind kind = kind_of(path, members);
    found[path] = kind;
    if (kind == Kind::linear || kind == Kind::embedding) known.insert(std::string(path));
  }
  for (const auto& [path, members] : paths)
    if (auto it = found.find(path); it != found.end() && owned(parent_of(path))) found.erase(it);
  for (const auto& [path, members] : paths)
    if (found.contains(path) && is_projection(last_of(path)) && !parent_of(path).empty()) found[parent_of(path)] = Kind::attention;
  for (const auto& [path, kind] : found) {
    Module m;
    m.path = path;
    m.kind = kind;
    m.optional = true;
    m.structural = true;
    m.exempt = one_of(last_of(path), {"gate", "router", "shared_expert_gate"});
    out.modules.push_back(std::move(m));
  }
}

}  // namespace qb::arch
