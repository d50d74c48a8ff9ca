// Matrices put together.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "arch/joined.h"
#include "ir/parts.h"
#include "ir/stack.h"
#include "pass/forms.h"

namespace qb::pass {
namespace {

using ir::Module;
using ir::Role;
using ir::Stored;
using Parts = std::vector<const Module*>;

std::string text(const Module& m) {
  return m.scheme ? to_string(*m.scheme) : "plain numbers";
}

// Puts the parts of one matrix together; what keeps it from that is said once.
class Joiner {
 public:
  explicit Joiner(Surveyor& surveyor) : surveyor_(surveyor) {}

  std::string why;

  // Parts below each other or, row by row, in turns.
  Result<std::optional<Module>> rows(const Parts& parts, bool turns) {
    const Module& first = *parts.front();
    if (!alike(parts)) return std::optional<Module>();
    Module out = first;
    out.n = 0;
    for (const Module* m : parts) out.n += m->n;
    out.parts.clear();
    const ir::Block block = first.scheme ? first.scheme->weight.block : ir::Block{1, 1};
    if (block.rows > 1)
      for (const Module* m : parts)
        if (turns || (m != parts.back() && m->n % block.rows != 0)) return no("{} has {} rows, which do not end with a block of {}", m->path, m->n, block.rows);
    for (const Stored& s : first.parts) {
      switch (s.role) {
        case Role::shape:
          continue;  // writers make it
        case Role::code:
        case Role::bias:
          out.parts.push_back(ir::joined(of(parts, s.role), {0, turns}));
          continue;
        case Role::scale:
        case Role::zero:
          if (block != ir::Block{0, 0}) {
            out.parts.push_back(ir::joined(of(parts, s.role), {0, turns}));
            continue;
          }
          [[fallthrough]];
        default:
          QB_ASSIGN(const bool one, same(parts, s.role));
          if (!one) return std::optional<Module>();
          out.parts.push_back(s);
      }
    }
    return std::optional(std::move(out));
  }

  // Experts below each other, each with the outputs first.
  Result<std::optional<Module>> stack(const std::vector<Module>& experts) {
    Parts parts;
    for (const Module& m : experts) parts.push_back(&m);
    const Module& first = experts.front();
    const auto count = static_cast<int64_t>(experts.size());
    if (!alike(parts)) return std::optional<Module>();
    if (first.part(Role::zero) != nullptr) return no("{} has zero points, which stacks have no place for", first.path);
    Module out = first;
    out.kind = arch::Kind::expert;
    out.n = first.n * count;
    out.stack = {.experts = count};
    out.parts.clear();
    const ir::Block block = first.scheme ? first.scheme->weight.block : ir::Block{1, 1};
    if (block.rows > 1 && first.n % block.rows != 0) return no("{} has {} rows, which do not end with a block of {}", first.path, first.n, block.rows);
    for (const Stored& s : first.parts) {
      std::vector<Stored> each = of(parts, s.role);
      bool one = false;
      if (s.role == Role::shape) continue;
      if (s.role == Role::bias) {
        for (Stored& bias : each) bias = ir::swapped(std::move(bias));
      } else if (s.role == Role::scale && block == ir::Block{0, 0}) {
        QB_ASSIGN(one, same(parts, s.role));
        out.stack.own_scale = !one;
        why.clear();
      } else if (s.role != Role::code && s.role != Role::scale) {
        QB_ASSIGN(one, same(parts, s.role));
        if (!one) return std::optional<Module>();
      }
      out.parts.push_back(one ? s : ir::joined(std::move(each), {}));
    }
    return std::optional(std::move(out));
  }

 private:
  template <class... Args>
  std::optional<Module> no(fmt::format_string<Args...> format, Args&&... args) {
    why = fmt::format(format, std::forward<Args>(args)...);
    return std::nullopt;
  }

  static std::vector<Stored> of(const Parts& parts, Role role) {
    std::vector<Stored> out;
    for (const Module* m : parts) out.push_back(*m->part(role));
    return out;
  }

  // Whether they can be rows of one matrix, whatever their numbers are.
  bool alike(const Parts& parts) {
    const Module& first = *parts.front();
    for (const Module* m : parts) {
      if (m->scheme != first.scheme) return no("{} is {}, {} is {}", first.path, text(first), m->path, text(*m)).has_value();
      if (m->k != first.k) return no("{} has {} inputs, {} has {}", first.path, first.k, m->path, m->k).has_value();
      if (m->make) return no("{} is to be quantized now: quantize first, and convert then", m->path).has_value();
      if (!m->transforms.empty()) return no("{} has transforms", m->path).has_value();
      for (const Stored& s : m->parts) {
        const bool odd = s.role == Role::order || s.role == Role::lowrank_a || s.role == Role::lowrank_b || s.role == Role::plain;
        if (odd || !s.mask.tensor.empty())
          return no("{} has {}", m->path, odd ? fmt::format("a {} of its own ({})", ir::to_string(s.role), s.tensor) : "zeros that are not stored").has_value();
        const Stored* other = first.part(s.role);
        if (other == nullptr) return no("{} has a {}, {} has none", m->path, ir::to_string(s.role), first.path).has_value();
        if (other->elem != s.elem || other->form != s.form)
          return no("{} is {}, {} is {}", other->tensor, info(other->container).name, s.tensor, info(s.container).name).has_value();
      }
      for (const Stored& s : first.parts)
        if (m->part(s.role) == nullptr) return no("{} has a {}, {} has none", first.path, ir::to_string(s.role), m->path).has_value();
    }
    return true;
  }

  // Whether all parts have the same numbers there.
  Result<bool> same(const Parts& parts, Role role) {
    const Stored& a = *parts.front()->part(role);
    for (const Module* m : parts) {
      const Stored& b = *m->part(role);
      if (&a == &b || (a.file == b.file && a.offset == b.offset && a.view == b.view && a.times == b.times)) continue;
      bool equal = a.view.dims == b.view.dims && !a.changed() && !b.changed();
      if (equal && a.value && b.value) {
        equal = *a.value == *b.value;
      } else if (equal && !is_integer_code(a.elem)) {
        QB_ASSIGN(const prog::SurveyResult r,
                  surveyor_.ask({.kind = prog::SurveyKind::equal, .input = prog::input_of(a, 1), .second = {prog::input_of(b, 1)}}));
        equal = r.inexact == 0;
      } else {
        equal = false;
      }
      if (equal) continue;
      const auto value = [](const Stored& s) { return s.value ? fmt::format(" = {}", *s.value) : std::string(); };
      why = fmt::format("one {} for the whole matrix, and {}{} is not {}{}", ir::to_string(role), a.tensor, value(a), b.tensor, value(b));
      return false;
    }
    return true;
  }

  Surveyor& surveyor_;
};

// The stack of these modules, those of one expert behind each other, as `t` describes it.
Result<std::optional<Module>> stack_of(Joiner& joiner, const Parts& parts, const arch::Module& t) {
  const size_t each = parts.size() / static_cast<size_t>(std::max<int64_t>(t.experts, 1));
  if (each == 0 || parts.size() != each * static_cast<size_t>(t.experts)) {
    joiner.why = fmt::format("{} modules are not those of {} experts", parts.size(), t.experts);
    return std::optional<Module>();
  }
  std::vector<Module> experts;
  for (size_t e = 0; e < parts.size(); e += each) {
    if (each == 1) {
      experts.push_back(*parts[e]);
      continue;
    }
    QB_ASSIGN(std::optional<Module> one, joiner.rows({parts.begin() + static_cast<int64_t>(e), parts.begin() + static_cast<int64_t>(e + each)}, t.interleaved));
    if (!one) return std::optional<Module>();
    one->path = parts[e]->path;
    experts.push_back(std::move(*one));
  }
  QB_ASSIGN(std::optional<Module> m, joiner.stack(experts));
  if (!m) return m;
  if (!m->scheme && t.inputs_first) m = ir::turned(*m);
  return m;
}

void set_shapes(Module& m) {
  const int64_t experts = m.stack.experts;
  if (experts == 0) return;
  for (Stored& s : m.parts) {
    if (s.role == Role::bias) s.shape = {experts, s.view.dims[1]};
    if (s.role == Role::code && !m.scheme) s.shape = {experts, m.n / experts, m.k};
  }
}

// Puts one kind of groups together; false where one of them cannot be.
class Pass {
 public:
  Pass(ir::Checkpoint& c, Surveyor& surveyor, Diagnostics& diag) : c_(c), joiner_(surveyor), diag_(diag) {}

  Result<bool> run(bool experts, std::vector<Reformed>& done) {
    std::vector<arch::Module>& all = c_.topology.modules;
    std::vector<size_t> at(all.size(), c_.modules.size());
    for (size_t i = 0; i < c_.modules.size(); ++i)
      if (c_.modules[i].topology >= 0) at[static_cast<size_t>(c_.modules[i].topology)] = i;
    const std::vector<std::vector<size_t>> groups = experts ? arch::stackable(all) : arch::fusable(all);
    std::vector<std::optional<std::pair<arch::Module, Module>>> made(all.size());  // in the place of the first member
    std::vector<bool> gone(all.size());
    Reformed r{.modules = {}, .into = 0, .how = experts ? "all experts of a layer in one tensor" : "projections that read the same input in one matrix"};
    for (const std::vector<size_t>& group : groups) {
      std::vector<arch::Module> members;
      Parts parts;
      for (size_t i : group) {
        members.push_back(all[i]);
        const Module* m = at[i] < c_.modules.size() ? &c_.modules[at[i]] : nullptr;
        if (m != nullptr && m->part(Role::code) != nullptr) parts.push_back(m);
      }
      arch::Module t = experts ? arch::stacked(std::move(members), *c_.topology.family) : arch::fused(std::move(members));
      Module whole{.path = t.path, .kind = t.kind};
      if (!parts.empty()) {
        QB_ASSIGN(std::optional<Module> joined, together(parts, group.size(), t));
        if (!joined) {
          refuse(t);
          return false;
        }
        whole = std::move(*joined);
        for (const Module* m : parts) r.modules.push_back(m->path);
        ++r.into;
      }
      for (size_t i : group) gone[i] = true;
      made[group.front()].emplace(std::move(t), std::move(whole));
    }
    if (groups.empty()) return true;
    std::vector<arch::Module> topology;
    std::vector<Module> modules;
    for (Module& m : c_.modules) {
      const auto i = static_cast<size_t>(m.topology);
      if (m.topology < 0) {
        modules.push_back(std::move(m));
        continue;
      }
      if (gone[i] && !made[i]) continue;
      modules.push_back(made[i] ? std::move(made[i]->second) : std::move(m));
      topology.push_back(made[i] ? std::move(made[i]->first) : std::move(all[i]));
      modules.back().topology = static_cast<int>(topology.size()) - 1;
    }
    c_.modules = std::move(modules);
    all = std::move(topology);
    if (r.into > 0) done.push_back(std::move(r));
    return true;
  }

 private:
  Result<std::optional<Module>> together(const Parts& parts, size_t members, const arch::Module& t) {
    joiner_.why.clear();
    if (parts.size() != members) {
      joiner_.why = fmt::format("{} of {} parts are there", parts.size(), members);
      return std::optional<Module>();
    }
    const bool stack = t.kind == arch::Kind::expert;
    QB_ASSIGN(std::optional<Module> m, stack ? stack_of(joiner_, parts, t) : joiner_.rows(parts, false));
    if (!m) return m;
    m->kind = t.kind;
    ir::rename(*m, t.path);
    set_shapes(*m);
    return m;
  }

  void refuse(const arch::Module& t) {
    const bool numbers = joiner_.why.starts_with("one ");
    Problem& p = diag_.report("form-inexpressible", {.module = t.path}, fmt::format("{} cannot be put together: {}", t.path, joiner_.why),
                              "parts with equal schemes, and with equal numbers for the whole matrix");
    if (numbers && t.kind != arch::Kind::expert)
      p.action = "--repair lossy makes scales that engines share one, where block scales can take the difference up; or leave the projections as they are.";
  }

  ir::Checkpoint& c_;
  Joiner joiner_;
  Diagnostics& diag_;
};

}  // namespace

Result<bool> join(ir::Checkpoint& c, arch::Joined which, Surveyor& surveyor, std::vector<Reformed>& done, Diagnostics& diag) {
  if (!which.projections && !which.experts) return true;
  if (!is_family_known(c, diag)) return false;
  Pass pass(c, surveyor, diag);
  if (which.experts) {
    QB_ASSIGN(const bool stacked, pass.run(true, done));
    if (!stacked) return false;
  }
  if (!which.projections) return true;
  return pass.run(false, done);
}

}  // namespace qb::pass
