#include "pass/fold.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "ir/parts.h"
#include "ir/region.h"

namespace qb::pass {
namespace {

using ir::Role;

// Rounding to the three bits of an E4M3 number costs a sixteenth at most; what is further off has left the range of its format.
constexpr double out_of_range = 1.0 / 16;

struct Change {
  size_t module, part;
  ir::Stored becomes;
};

// What would have to be done for modules that share their factors.
struct Plan {
  std::vector<size_t> modules;
  std::vector<Change> changes;
  std::string into, why_not;
  double error = 0;
};

class Folder {
 public:
  Folder(ir::Checkpoint& c, const RepairContext& context) : c_(c), context_(context) {}

  Result<std::vector<Plan>> plans() {
    std::map<std::string, std::vector<size_t>> by_norm;
    std::vector<Plan> out;
    for (size_t i = 0; i < c_.modules.size(); ++i) {
      if (topology(i) == nullptr || c_.modules[i].part(Role::code) == nullptr) continue;
      if (!topology(i)->input_norm.empty())
        by_norm[topology(i)->input_norm].push_back(i);
      else if (scales_inputs(i))
        out.push_back({.modules = {i}});
    }
    for (Plan& p : out) QB_TRY(into_rows(p));
    for (const auto& [norm, readers] : by_norm) {
      if (std::none_of(readers.begin(), readers.end(), [this](size_t i) { return scales_inputs(i); })) continue;
      out.push_back({.modules = readers});
      QB_TRY(into_norm(norm, out.back()));
    }
    return out;
  }

 private:
  const arch::Module* topology(size_t i) const {
    const int t = c_.modules[i].topology;
    return t < 0 ? nullptr : &c_.topology.modules[static_cast<size_t>(t)];
  }
  bool scales_inputs(size_t i) const { return c_.modules[i].part(Role::prescale) != nullptr; }

  size_t find(const std::string& path) const {
    return static_cast<size_t>(std::find_if(c_.modules.begin(), c_.modules.end(), [&](const ir::Module& m) { return m.path == path; }) - c_.modules.begin());
  }

  // The linear with that path: a module of its own, or rows of one that it shares with others.
  struct Feeder {
    size_t module;
    arch::Range rows;
  };
  std::optional<Feeder> feeder_of(const std::string& path) const {
    if (path.empty()) return std::nullopt;
    for (size_t i = 0; i < c_.modules.size(); ++i) {
      if (c_.modules[i].part(Role::code) == nullptr) continue;
      if (c_.modules[i].path == path) return Feeder{i, {0, c_.modules[i].n}};
      const arch::Module* t = topology(i);
      if (t == nullptr || t->kind == arch::Kind::expert) continue;
      int64_t at = 0;
      for (const arch::Module& part : t->parts) {
        if (part.path == path) return Feeder{i, {at, at + part.n}};
        at += part.n;
      }
    }
    return std::nullopt;
  }

  // Nothing is handed through a transform, nor to outputs that are quantized.
  static bool turned(Plan& plan, const ir::Module& m) {
    if (m.transforms.empty() && !(m.scheme && m.scheme->features.output)) return false;
    plan.why_not = fmt::format("{} has transforms or quantized outputs", m.path);
    return true;
  }

  // The factors as a column of numbers, with every row in its turn.
  static ir::Stored column(const ir::Stored& prescale) {
    ir::Stored s = prescale;
    s.view.dims = {prescale.view.dims[1], 1};
    s.view.stride = {prescale.view.stride[1], prescale.view.stride[1]};
    return s;
  }

  Result<bool> equal(const ir::Stored& a, const ir::Stored& b) const {
    if (a.view.dims != b.view.dims) return false;
    QB_ASSIGN(const prog::SurveyResult r,
              context_.surveyor.ask({.kind = prog::SurveyKind::equal, .input = prog::input_of(a, 1), .second = {prog::input_of(b, 1)}}));
    return r.inexact == 0;
  }

  // Some of its rows are multiplied, or all.
  Result<void> change(Plan& plan, size_t module, size_t part, arch::Range rows, const ir::Stored& factors, double plus) const {
    const ir::Stored& whole = c_.modules[module].parts[part];
    const int64_t count = whole.view.dims[0];
    const bool all = rows == arch::Range{0, count};
    std::optional<ir::Stored> s = all ? whole : ir::rows_of(whole, rows);
    const std::optional<ir::Stored> above = all ? whole : ir::rows_of(whole, {0, rows.begin}), below = all ? whole : ir::rows_of(whole, {rows.end, count});
    if (!s || !above || !below) {
      plan.why_not = fmt::format("rows {} to {} of {} cannot be taken by themselves", rows.begin, rows.end, whole.tensor);
      return {};
    }
    s->by.push_back(factors);
    s->plus = plus;
    QB_ASSIGN(const prog::SurveyResult r, context_.surveyor.ask({.kind = prog::SurveyKind::rounding, .input = prog::input_of(*s, 1)}));
    if (r.error > out_of_range) plan.why_not = fmt::format("{} would leave the range of {}", s->tensor, info(s->elem).name);
    plan.error = std::max(plan.error, r.error);
    if (!all) {
      std::vector<ir::Stored> parts;
      if (rows.begin > 0) parts.push_back(*above);
      parts.push_back(std::move(*s));
      if (rows.end < count) parts.push_back(*below);
      s = ir::joined(std::move(parts), {});
      s->shape = whole.shape;
    }
    plan.changes.push_back({module, part, std::move(*s)});
    return {};
  }

  Result<void> into_norm(const std::string& norm, Plan& plan) const {
    const size_t at = find(norm);
    const ir::Stored& factors =
        *c_.modules[*std::find_if(plan.modules.begin(), plan.modules.end(), [this](size_t i) { return scales_inputs(i); })].part(Role::prescale);
    for (size_t i : plan.modules) {
      if (turned(plan, c_.modules[i])) return {};
      if (!scales_inputs(i)) {
        plan.why_not = fmt::format("{} reads {} too and does not scale it", c_.modules[i].path, norm);
        return {};
      }
      QB_ASSIGN(const bool same, equal(factors, *c_.modules[i].part(Role::prescale)));
      if (same) continue;
      plan.why_not = fmt::format("{} reads {} too and scales it otherwise", c_.modules[i].path, norm);
      return {};
    }
    if (c_.topology.family == nullptr || at == c_.modules.size() || c_.modules[at].parts.size() != 1 ||
        c_.modules[at].parts[0].view.dims != column(factors).view.dims) {
      plan.why_not = fmt::format("{} has no weight for each of these inputs alone", norm);
      return {};
    }
    plan.into = norm;
    return change(plan, at, 0, {0, c_.modules[at].parts[0].view.dims[0]}, column(factors), c_.topology.family->norm_plus);
  }

  // The values of an attention are shared by several heads of queries, whose factors then have to be equal.
  Result<void> of_values(const ir::Stored& prescale, int64_t rows, ir::Stored& factors, Plan& plan) const {
    const int64_t heads = c_.topology.heads, kv_heads = c_.topology.kv_heads, size = c_.topology.head_dim, width = bits(prescale.elem);
    if (heads <= 0 || kv_heads <= 0 || size <= 0 || heads % kv_heads != 0 || rows != kv_heads * size || prescale.view.dims[1] != heads * size) {
      plan.why_not = fmt::format("its {} inputs are not {} rows of heads", prescale.view.dims[1], rows);
      return {};
    }
    const int64_t sharing = heads / kv_heads;
    factors.view.dims = {rows, 1};
    factors.view.piece = size;
    factors.view.next_piece = sharing * size * width;
    for (int64_t head = 1; head < sharing; ++head) {
      ir::Stored other = factors;
      other.view.offset += head * size * width;
      QB_ASSIGN(const bool same, equal(factors, other));
      if (same) continue;
      plan.why_not = fmt::format(
          "heads of queries that share a head of values ({} of {} each) are scaled differently, and its rows can take up one factor alone", sharing, heads);
      return {};
    }
    return {};
  }

  Result<void> into_rows(Plan& plan) const {
    const size_t own = plan.modules.front();
    const std::string& path = topology(own)->fed_by;
    const std::optional<Feeder> from = feeder_of(path);
    if (!from) {
      plan.why_not = path.empty() ? "what it reads is not known to be one linear's outputs" : fmt::format("{} is not there", path);
      return {};
    }
    const ir::Module& feeder = c_.modules[from->module];
    if (turned(plan, feeder) || turned(plan, c_.modules[own])) return {};
    const ir::Stored& prescale = *c_.modules[own].part(Role::prescale);
    ir::Stored factors = column(prescale);
    if (from->rows.size() != prescale.view.dims[1]) QB_TRY(of_values(prescale, from->rows.size(), factors, plan));
    if (!plan.why_not.empty()) return {};
    // Scales of a cache were measured on values as they are.
    const std::string attention = path.substr(0, path.rfind('.'));
    if (const size_t cache = find(attention); cache != c_.modules.size() && c_.modules[cache].part(Role::v_scale) != nullptr) {
      plan.why_not = fmt::format("the outputs of {} are kept in a cache with a scale", path);
      return {};
    }
    const bool rows = !feeder.scheme || (feeder.scheme->weight.block.rows == 1 && feeder.part(Role::scale) != nullptr);
    const ir::Stored& taking = *feeder.part(feeder.scheme ? Role::scale : Role::code);
    if (!rows || feeder.stack.experts > 0 || taking.form != ir::ScaleForm::multiply || !info(taking.elem).is_float || taking.view.dims[0] != feeder.n ||
        !taking.mask.tensor.empty()) {
      plan.why_not = fmt::format("{} ({}) has no scale for each row", path, feeder.scheme ? to_string(feeder.scheme->weight) : "plain");
      return {};
    }
    plan.into = path;
    for (size_t p = 0; p < feeder.parts.size(); ++p) {
      const Role role = feeder.parts[p].role;
      if (&feeder.parts[p] == &taking || role == Role::bias || role == Role::lowrank_b) QB_TRY(change(plan, from->module, p, from->rows, factors, 0));
    }
    return {};
  }

  const ir::Checkpoint& c_;
  const RepairContext& context_;
};

}  // namespace

bool has_prescales(const ir::Checkpoint& c) {
  return std::any_of(c.modules.begin(), c.modules.end(), [](const ir::Module& m) { return m.part(Role::prescale) != nullptr; });
}

Result<void> fold(ir::Checkpoint& c, const RepairContext& context, Diagnostics& diag, std::vector<Folded>& done) {
  QB_ASSIGN(std::vector<Plan> plans, Folder(c, context).plans());
  for (Plan& p : plans) {
    std::erase_if(p.modules, [&](size_t i) { return c.modules[i].part(Role::prescale) == nullptr; });
    const bool allowed = p.error == 0 ? context.allowed != Repair::none : context.allowed == Repair::lossy;
    if (!p.why_not.empty() || !allowed) {
      for (size_t i : p.modules) {
        Problem& problem =
            diag.report("prescale-inexpressible", {.tensor = c.modules[i].part(Role::prescale)->tensor, .module = c.modules[i].path},
                        !p.why_not.empty() ? p.why_not : fmt::format("folding it into {} changes its numbers by up to {:.2g} of them", p.into, p.error),
                        p.why_not.empty() ? fmt::format("--repair {}", p.error == 0 ? "exact" : "lossy")
                                          : "factors that what feeds the module can take up, whatever --repair allows; --to modelopt keeps them, --to dense "
                                            "multiplies the weights");
        if (!p.why_not.empty()) problem.action = "Choose modelopt as the target, or dense, which multiplies the weights.";
        problem.repair = !p.why_not.empty() ? Repair::none : p.error == 0 ? Repair::exact : Repair::lossy;
      }
      continue;
    }
    Folded f{.modules = {}, .from = *c.modules[p.modules.front()].scheme, .into = p.into, .max_relative_error = p.error};
    for (size_t i : p.modules) {
      ir::Module& m = c.modules[i];
      m.scheme->features.prescale = false;
      f.modules.push_back(m.path);
    }
    for (Change& change : p.changes) c.modules[change.module].parts[change.part] = std::move(change.becomes);
    done.push_back(std::move(f));
  }
  for (ir::Module& m : c.modules)
    if (m.scheme && !m.scheme->features.prescale) std::erase_if(m.parts, [](const ir::Stored& s) { return s.role == Role::prescale; });
  return {};
}

}  // namespace qb::pass
