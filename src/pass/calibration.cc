#include "pass/calibration.h"

#include <fmt/format.h>

#include "ir/given.h"

namespace qb::pass {
namespace {

using ir::Role;
using recipe::Range;

// Of the language model: what lies beside it has no cache.
bool has_cache(const ir::Checkpoint& c, const ir::Module& m) {
  if (m.kind != arch::Kind::attention || m.topology < 0) return false;
  const arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
  return t.layer >= 0 && t.layer < c.topology.layers && !t.structural;
}

bool inputs_missing(const ir::Module& m) {
  return m.make && m.scheme && m.scheme->input && m.scheme->input->when == ir::When::fixed && m.part(Role::input_scale) == nullptr;
}

// Weights of four bits that kernels may hold as FP8 on their way.
bool stage_missing(const ir::Module& m) {
  return inputs_missing(m) && m.scheme->input->type.code == Elem::e4m3 && m.scheme->weight.code == Elem::int4 && m.part(Role::stage) == nullptr &&
         recipe::find_recipe(m.make->recipe)->numerics == recipe::Numerics::modelopt;
}

// The projections of a layer's experts that are alike, whose inputs ModelOpt measures together: it holds them in one module.
using Siblings = std::pair<int, std::string_view>;
Siblings siblings_of(const arch::Module& t) {
  return {t.layer, t.of_experts};
}

class Giver {
 public:
  Giver(ir::Checkpoint& c, const Ranges& ranges, recipe::Numerics numerics, Diagnostics& diag) : c_(c), ranges_(ranges), numerics_(numerics), diag_(diag) {}

  bool run() {
    const std::vector<Measured> wanted = unmeasured(c_);
    bring_together();
    std::map<std::string_view, ir::Module*> modules;
    for (ir::Module& m : c_.modules) modules.emplace(m.path, &m);
    for (const Measured& what : wanted) {
      ir::Module& m = *modules.at(what.path);
      if (what.role == Role::input_scale || what.role == Role::stage)
        give(m, what.role, m.scheme->input->type, recipe::find_recipe(m.make->recipe)->numerics);
      else
        give(m, what.role, c_.kv->scheme.type, numerics_);
    }
    return diag_.ok();
  }

 private:
  const arch::Module* expert(const ir::Module& m) const {
    const arch::Module* t = m.topology < 0 ? nullptr : &c_.topology.modules[static_cast<size_t>(m.topology)];
    return t == nullptr || t->of_experts.empty() ? nullptr : t;
  }

  void bring_together() {
    for (const ir::Module& m : c_.modules)
      if (const arch::Module* t = expert(m); t != nullptr) together_[siblings_of(*t)].add(range({m.path, Role::input_scale}));
  }

  Range range(const Measured& what) const {
    const auto it = ranges_.measured.find(what);
    return it != ranges_.measured.end() ? it->second : ranges_.otherwise.value_or(Range{});
  }

  void give(ir::Module& m, Role role, const ir::QuantType& type, recipe::Numerics numerics) {
    if (!recipe::has_static_scale(type, numerics)) {
      diag_.report("recipe-missing", {.module = m.path},
                   fmt::format("{} with the numerics of {}", to_string(ir::Activation{type, ir::When::fixed}), recipe::to_string(numerics)),
                   "activations with one static scale, for which the producer has a formula");
      return;
    }
    const arch::Module* t = expert(m);
    const bool shared = role == Role::input_scale && t != nullptr && numerics == recipe::Numerics::modelopt;
    const Range r = shared ? together_.at(siblings_of(*t)) : range({m.path, role});
    const std::optional<recipe::StaticScale> scale = recipe::static_scale(type, numerics, r);
    if (!scale) {
      diag_.report("calibration-range", {.module = m.path},
                   r.empty() ? fmt::format("{}: nothing was seen", to_string(role)) : fmt::format("{}: from {} to {}", to_string(role), r.least, r.most),
                   "numbers that are finite and not all 0");
      return;
    }
    m.parts.push_back(ir::given(role, Elem::f32, scale->divides ? ir::ScaleForm::divide : ir::ScaleForm::multiply, static_cast<double>(scale->scale)));
    if (scale->zero) m.parts.push_back(ir::given(Role::input_zero, Elem::i8, ir::ScaleForm::multiply, *scale->zero));
  }

  ir::Checkpoint& c_;
  const Ranges& ranges_;
  recipe::Numerics numerics_;
  Diagnostics& diag_;
  std::map<Siblings, Range> together_;
};

}  // namespace

std::vector<Measured> unmeasured(const ir::Checkpoint& c) {
  std::vector<Measured> out;
  for (const ir::Module& m : c.modules) {
    if (stage_missing(m)) out.push_back({m.path, Role::stage});
    if (inputs_missing(m)) out.push_back({m.path, Role::input_scale});
    if (!c.kv || c.kv->scheme.when != ir::When::fixed || !has_cache(c, m)) continue;
    for (const Role role : {Role::k_scale, Role::v_scale})
      if (m.part(role) == nullptr) out.push_back({m.path, role});
  }
  return out;
}

bool give_scales(ir::Checkpoint& c, const Ranges& ranges, recipe::Numerics numerics, Diagnostics& diag) {
  return Giver(c, ranges, numerics, diag).run();
}

}  // namespace qb::pass
