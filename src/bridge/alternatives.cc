#include "bridge/alternatives.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

namespace qb {
namespace {

// No number can be said shorter than it is.
class Unread : public Surveyor {
 public:
  Result<prog::SurveyResult> ask(const prog::Survey&) override { return prog::SurveyResult{.count = 1, .inexact = 1}; }
};

// What of a module decides whether a dialect can write it.
std::string kind_of(const ir::Module& m) {
  std::string out = fmt::format("{} {} {} {} {} {} {} {}", m.scheme ? to_string(*m.scheme) : "", static_cast<int>(m.kind), m.n, m.k, m.stack.experts,
                                m.stack.inputs_first, m.stack.own_scale, m.transforms.size());
  for (const ir::Stored& s : m.parts) out += fmt::format(" {}{}", ir::to_string(s.role), s.mask == ir::Mask{} ? "" : " sparse");
  return out;
}

class Alternatives {
 public:
  Alternatives(const ir::Checkpoint& c, const Dialect& target, const WriteContext& context)
      : c_(c), target_(target), context_{.package = context.package, .facts = context.facts, .surveyor = unread_}, one_(without_modules(c)) {}

  // The dialects that can hold the module; null: everything that is quantized.
  const std::string& of(const ir::Module* m) {
    const auto [it, fresh] = known_.try_emplace(m != nullptr ? kind_of(*m) : "");
    if (!fresh) return it->second;
    one_.modules.clear();
    if (m != nullptr) {
      one_.modules.push_back(*m);
      one_.kv.reset();
    } else {
      one_.kv = c_.kv;
      std::map<std::string, const ir::Module*> kinds;
      for (const ir::Module& each : c_.modules)
        if (each.scheme) kinds.try_emplace(kind_of(each), &each);
      for (const auto& [kind, each] : kinds) one_.modules.push_back(*each);
    }
    return it->second = takers();
  }
  const std::string& of_kv() {
    const auto [it, fresh] = known_.try_emplace("kv");
    if (!fresh) return it->second;
    one_.kv = c_.kv;
    one_.modules.clear();
    return it->second = takers();
  }

 private:
  static ir::Checkpoint without_modules(const ir::Checkpoint& c) {
    ir::Checkpoint out;
    out.topology = c.topology;
    out.dialect = c.dialect;
    out.quant_algo = c.quant_algo;
    out.producer = c.producer;
    out.model_dtype = c.model_dtype;
    return out;
  }

  std::string takers() {
    std::string out;
    for (const Dialect* d : dialects()) {
      if (d == &target_ || d->write == nullptr || d->name == "dense") continue;
      if (!d->transforms && std::any_of(one_.modules.begin(), one_.modules.end(), [](const ir::Module& m) { return !m.transforms.empty(); })) continue;
      if (holds(*d)) out += fmt::format("{}{}", out.empty() ? "" : ", ", d->name);
    }
    return out;
  }

  // As it is, or as a conversion would write it: stacks that the dialect has no place for are taken apart.
  bool holds(const Dialect& d) const {
    Export plan;
    Diagnostics diag;
    if (d.write(one_, context_, plan, diag)) return true;
    std::vector<pass::Reformed> reformed;
    std::vector<pass::SmallerBlocks> smaller;
    Export again;
    Diagnostics of_parts;
    return write_apart(d, one_, context_, again, reformed, smaller, of_parts);
  }

  const ir::Checkpoint& c_;
  const Dialect& target_;
  Unread unread_;
  const WriteContext context_;
  ir::Checkpoint one_;
  std::map<std::string, std::string> known_;
};

}  // namespace

bool write_apart(const Dialect& d, ir::Checkpoint c, const WriteContext& context, Export& out, std::vector<pass::Reformed>& reformed,
                 std::vector<pass::SmallerBlocks>& smaller, Diagnostics& diag) {
  if (std::none_of(c.modules.begin(), c.modules.end(), [](const ir::Module& m) { return m.kind == arch::Kind::expert && m.scheme; })) return false;
  return pass::separate(c, {.experts = true}, reformed, smaller, diag) && d.write(c, context, out, diag);
}

void name_alternatives(const ir::Checkpoint& c, const Dialect& target, const WriteContext& context, Diagnostics& diag) {
  if (!diag.has("scheme-inexpressible")) return;
  Alternatives alternatives(c, target, context);
  std::map<std::string_view, const ir::Module*> modules;
  for (const ir::Module& m : c.modules) modules.emplace(m.path, &m);
  for (Problem& p : diag.all()) {
    if (p.code != "scheme-inexpressible") continue;
    const auto it = modules.find(p.module);
    const bool kv = p.found.starts_with("kv:");
    const std::string& takers = kv ? alternatives.of_kv() : alternatives.of(it != modules.end() ? it->second : nullptr);
    p.action = !takers.empty()                ? fmt::format("Choose a dialect that can hold it: {}.", takers)
               : kv || target.name == "dense" ? std::string("No dialect can hold it.")
                                              : std::string("No dialect can hold it as it is; `dense` can hold what it dequantizes to.");
  }
}

}  // namespace qb
