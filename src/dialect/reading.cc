#include "dialect/reading.h"

#include <fmt/format.h>

#include <algorithm>

#include "arch/structure.h"
#include "base/json.h"

namespace qb {
namespace {

bool is_plain_float(Elem e) {
  return e == Elem::f32 || e == Elem::f16 || e == Elem::bf16 || e == Elem::f64;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

bool is_matrix(arch::Kind kind) {
  return kind == arch::Kind::linear || kind == arch::Kind::embedding || kind == arch::Kind::expert;
}

// The weight's size as it is stored: [n, k], of stacked experts [experts, rows, columns]; as read, and by config.json.
std::vector<int64_t> size_of(const ir::Module& m) {
  const int64_t experts = m.stack.experts;
  return experts == 0 ? std::vector{m.n, m.k} : std::vector{experts, m.n / experts, m.k};
}
std::vector<int64_t> size_by(const arch::Module& config, const ir::Stack& stack) {
  if (stack.experts == 0) return {config.n, config.k};
  return stack.inputs_first ? std::vector{config.experts, config.k, config.n} : std::vector{config.experts, config.n, config.k};
}

}  // namespace

bool Reading::begin(const std::function<std::string(std::string_view)>& as) {
  const Json* config = context.package.document("config.json");
  if (config == nullptr) return false;  // the container has said so
  std::vector<TensorInfo> renamed;
  if (as) {
    renamed = context.package.tensors;
    for (TensorInfo& t : renamed) names_.push_back(t.name = as(t.name));
    std::sort(renamed.begin(), renamed.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  }
  if (!arch::describe(*config, as ? renamed : context.package.tensors, out.topology, diag)) return false;
  origin = read_origin(context.package);
  out.modules.reserve(out.topology.modules.size());
  for (size_t i = 0; i < out.topology.modules.size(); ++i) {
    const arch::Module& m = out.topology.modules[i];
    out.modules.push_back({.path = m.path, .kind = m.kind, .topology = static_cast<int>(i)});
  }
  for (size_t i = 0; i < out.modules.size(); ++i) module_index_.emplace(out.topology.modules[i].path, i);
  owned_.resize(out.modules.size());
  claimed_.assign(context.package.tensors.size(), false);
  for (const TensorInfo& t : context.package.tensors) {
    const std::string_view name = as ? names_[static_cast<size_t>(&t - context.package.tensors.data())] : t.name;
    if (own_as_parameter(t, name)) continue;
    std::string_view path = name;
    while (true) {
      const size_t dot = path.rfind('.');
      if (dot == path.npos) break;
      path = path.substr(0, dot);
      if (auto it = module_index_.find(path); it != module_index_.end()) {
        owned_[it->second].push_back({&t, name.substr(path.size() + 1)});
        break;
      }
    }
  }
  return true;
}

bool Reading::own_as_parameter(const TensorInfo& t, std::string_view name) {
  for (std::string_view path = name; !path.empty(); path = path.substr(0, path.find_last_of("._"))) {
    if (auto it = module_index_.find(path); it != module_index_.end() && out.modules[it->second].kind == arch::Kind::expert) {
      owned_[it->second].push_back({&t, path == name ? "weight" : name.substr(path.size() + 1)});
      return true;
    }
    if (path.find_last_of("._") == path.npos || path[path.find_last_of("._")] == '.') return false;
  }
  return false;
}

ir::Module* Reading::module(std::string_view path) {
  auto it = module_index_.find(path);
  return it == module_index_.end() ? nullptr : &out.modules[it->second];
}

const TensorInfo* Reading::find(const ir::Module& module, std::string_view word) const {
  if (module.topology < 0) return nullptr;
  for (const Owned& o : owned_[static_cast<size_t>(module.topology)])
    if (o.word == word) return o.tensor;
  return nullptr;
}

std::vector<const TensorInfo*> Reading::tensors_of(const ir::Module& module) const {
  std::vector<const TensorInfo*> all;
  for (const Owned& o : owned_[static_cast<size_t>(module.topology)]) all.push_back(o.tensor);
  return all;
}

void Reading::claim(const TensorInfo& tensor) {
  claimed_[static_cast<size_t>(&tensor - context.package.tensors.data())] = true;
}
bool Reading::claimed(const TensorInfo& tensor) const {
  return claimed_[static_cast<size_t>(&tensor - context.package.tensors.data())];
}

ir::Stored Reading::stored(const TensorInfo& t, ir::Role role, Elem elem, int64_t rows, int64_t cols) const {
  ir::Stored s = ir::stored(t, role, elem, ir::row_major(rows, cols, bits(elem)));
  if (!names_.empty()) s.as = names_[static_cast<size_t>(&t - context.package.tensors.data())];
  if (const Facts::Scalar* fact = context.facts.find(t.name)) s.value = fact->value;
  if (auto it = origin.tensors.find(t.name); it != origin.tensors.end()) s.origin = it->second;
  return s;
}

bool Reading::read_plain(ir::Module& m) {
  const TensorInfo* t = find(m, "weight");
  if (t == nullptr || !is_plain_float(t->dtype)) return false;
  claim(*t);
  const bool stack = m.kind == arch::Kind::expert;
  if (t->shape.size() != (stack ? 3 : 2) || (stack && t->elements() == 0)) {
    diag.report("weight-shape", {.file = context.package.file_name(t->file), .tensor = t->name, .module = m.path}, shape_text(t->shape),
                stack ? "three dimensions, the first of them the experts" : "two dimensions [n, k]");
    return true;
  }
  m.k = t->shape.back();
  m.n = stack ? t->shape[0] * t->shape[1] : t->shape[0];
  if (stack) m.stack = {.experts = t->shape[0], .inputs_first = out.topology.modules[static_cast<size_t>(m.topology)].inputs_first};
  m.parts.push_back(stored(*t, ir::Role::code, t->dtype, m.n, m.k));
  return true;
}

void Reading::read_bias(ir::Module& m) {
  const TensorInfo* t = find(m, "bias");
  if (t == nullptr) return;
  claim(*t);
  const int64_t experts = m.stack.experts;
  const std::vector<int64_t> usual = experts == 0 ? std::vector{m.n} : std::vector{experts, m.stack.inputs_first ? m.k : m.n / experts};
  const bool fits = m.n == 0 ? t->shape.size() == (m.kind == arch::Kind::expert ? 2 : 1) : t->shape == usual;
  if (!is_plain_float(t->dtype) || !fits)
    diag.report("bias-shape", {.file = context.package.file_name(t->file), .tensor = t->name, .module = m.path},
                fmt::format("{} {}", info(t->dtype).safetensors, shape_text(t->shape)), fmt::format("floats {}", shape_text(usual)));
  const int64_t columns = experts > 0 && fits ? usual[1] : 1;
  m.parts.push_back(stored(*t, ir::Role::bias, t->dtype, t->elements() / columns, columns));
}

void Reading::read_others(ir::Module& m) {
  const arch::Module& t = out.topology.modules[static_cast<size_t>(m.topology)];
  const bool matrix = is_matrix(m.kind);
  for (const auto& [tensor, suffix] : owned_[static_cast<size_t>(m.topology)]) {
    const bool own = suffix == "weight" || suffix == "bias" || suffix == "inv_freq";
    const bool named = (!t.plain.empty() && suffix == t.plain) || (own && !matrix && m.kind != arch::Kind::attention) ||
                       (t.structural && !arch::is_quantization_word(suffix) && !(matrix && own));
    if (!named || claimed(*tensor)) continue;
    const bool counts = t.structural && (tensor->dtype == Elem::i64 || tensor->dtype == Elem::i32 || tensor->dtype == Elem::boolean);
    if (!is_plain_float(tensor->dtype) && !counts) continue;  // stays unclaimed and is reported
    claim(*tensor);
    if (m.kind == arch::Kind::norm && t.n != 0 && tensor->elements() != t.n)
      diag.report("config-shape-mismatch", {.file = context.package.file_name(tensor->file), .tensor = tensor->name, .module = m.path},
                  shape_text(tensor->shape), fmt::format("[{}] by config.json", t.n));
    if (!matrix) m.n = tensor->elements();
    m.parts.push_back(stored(*tensor, ir::Role::plain, tensor->dtype, tensor->elements(), 1));
  }
}

void Reading::read_modules(const std::function<void(ir::Module&)>& read_weight, const std::function<bool(ir::Module&)>& read_stack) {
  for (ir::Module& m : out.modules) {
    if (!is_matrix(m.kind) || tensors_of(m).empty()) continue;
    if (m.kind != arch::Kind::expert) {
      read_weight(m);
    } else if (!read_stack || !read_stack(m)) {
      if (!read_plain(m)) diag.report("weight-missing", {.tensor = m.path, .module = m.path}, "no floats", "floats for all experts");
      const NameRule* rule = excluded_by(m);
      m.why =
          rule != nullptr ? fmt::format("{}: '{}'", rules_from_, rule->text()) : "plain numbers: stacked experts are no linears, and no list has to name them";
      read_bias(m);
    }
  }
  for (ir::Module& m : out.modules) read_others(m);
  check_rules();
  finish();
}

void Reading::finish() {
  const Package& p = context.package;
  int64_t mismatches = 0;
  const ir::Module* first = nullptr;
  for (const ir::Module& m : out.modules) {
    const arch::Module& t = out.topology.modules[static_cast<size_t>(m.topology)];
    const bool matrix = is_matrix(m.kind);
    if (m.parts.empty() && !t.optional && tensors_of(m).empty())
      diag.report("module-missing", {.module = m.path}, "no tensors", matrix ? fmt::format("a weight [{}, {}]", t.n, t.k) : "a weight");
    const auto told = [&](const Problem& problem) { return problem.module == m.path; };
    if (matrix && m.part(ir::Role::code) == nullptr && !tensors_of(m).empty() && std::none_of(diag.all().begin(), diag.all().end(), told))
      diag.report("weight-missing", {.tensor = m.path + ".weight", .module = m.path}, fmt::format("{} alone", tensors_of(m).front()->name), "a weight");
    if (!matrix || t.structural || m.n == 0 || size_of(m) == size_by(t, m.stack)) continue;
    if (mismatches++ == 0) first = &m;
  }
  if (first != nullptr) {
    const arch::Module& t = out.topology.modules[static_cast<size_t>(first->topology)];
    const std::string others = mismatches > 1 ? fmt::format(" (and {} more modules differ)", mismatches - 1) : "";
    diag.report("config-shape-mismatch", {.file = "config.json", .tensor = first->parts.empty() ? "" : first->parts.front().tensor, .module = first->path},
                shape_text(size_of(*first)) + others, shape_text(size_by(t, first->stack)) + " by config.json");
  }
  // Whatever no module claimed, with the module that owns its name if there is one.
  for (size_t i = 0; i < p.tensors.size(); ++i) {
    if (claimed_[i]) continue;
    const TensorInfo& t = p.tensors[i];
    const size_t dot = t.name.rfind('.');
    const std::string_view leaf = dot == t.name.npos ? std::string_view(t.name) : std::string_view(t.name).substr(dot + 1);
    const bool kv = leaf == "k_scale" || leaf == "v_scale" || leaf == "kv_scale";
    diag.report(kv ? "kv-scale-unclaimed" : "tensor-unclaimed",
                {.file = p.file_name(t.file), .tensor = t.name, .module = dot == t.name.npos ? std::string_view() : std::string_view(t.name).substr(0, dot)},
                fmt::format("{} {}", info(t.dtype).safetensors, shape_text(t.shape)),
                kv                               ? "a KV scale of an attention module of this family"
                : out.topology.family != nullptr ? fmt::format("a tensor that a module of family {} has", out.topology.family->name)
                                                 : "a weight, a bias or a scale");
  }
}

}  // namespace qb
