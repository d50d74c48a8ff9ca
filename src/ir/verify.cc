#include "ir/verify.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

namespace qb::ir {
namespace {

// A KV scale above this stands for keys or values beyond 900, or for an amax that was stored in place of amax/448.
constexpr double kv_scale_plausible = 2.0;
// Second-level scales of a layer's experts that differ by more: experts that were calibrated alike stay within a few times of each other.
constexpr double experts_apart = 16;

class Verifier {
 public:
  Verifier(const Checkpoint& c, const std::vector<std::string>& files, Diagnostics& diag) : c_(c), files_(files), diag_(diag) {}

  void scalars(const Module& m) {
    for (const Stored& s : m.parts) {
      if (!s.value || s.role == Role::zero || s.role == Role::input_zero || s.role == Role::output_zero || s.role == Role::shape || s.role == Role::calibration)
        continue;
      const double v = *s.value;
      const Place place{.file = files_[s.file], .tensor = s.tensor, .module = m.path};
      const bool kv = s.role == Role::k_scale || s.role == Role::v_scale;
      const std::string found = fmt::format("{} = {}", to_string(s.role), v);
      if (std::isnan(v))
        diag_.report("scale-nan", place, found, "a positive number");
      else if (std::isinf(v))
        diag_.report("scale-inf", place, found, "a positive finite number");
      else if (v == 0)
        diag_.report("scale-zero", place, found, "a positive number");
      else if (v < 0)
        diag_.report("scale-negative", place, found, "a positive number");
      else if (kv && s.container == Elem::f32 && static_cast<float>(v) == 1.0f / 448.0f)
        diag_.report("kv-scale-uncalibrated", place, found, "a calibrated scale: exactly 1/448 stands for an amax of 1 that nobody measured");
      else if (kv && v > kv_scale_plausible)
        diag_.report("kv-scale-large", place, found, fmt::format("amax/448, below {}; was amax stored?", kv_scale_plausible));
    }
  }

  // Numbers that engines share over a fused matrix must be equal, or the engine takes one of them for all.
  void fused(const FusedMismatch& f) {
    bool exact = true;
    std::string names;
    for (size_t i : f.group) {
      const Stored& s = *c_.modules[i].part(f.role);
      names += fmt::format("{}{} = {}", names.empty() ? "" : ", ", s.tensor, *s.value);
      int e = 0;
      exact &= std::frexp(multiplier(*c_.modules[f.largest].part(f.role)) / multiplier(s), &e) == 0.5;
    }
    const Stored& first = *c_.modules[f.group.front()].part(f.role);
    const Place place{.file = files_[first.file], .tensor = first.tensor, .module = fused_name(c_, f)};
    if (f.role == Role::input_scale) {
      diag_.report("fused-input-scale-mismatch", place, names, "one value for modules that read the same input");
      return;
    }
    Problem& p = diag_.report("fused-scale-mismatch", place, names, "one second-level scale for modules that engines fuse");
    if (!exact) return;
    p.cls = ProblemClass::repairable;  // the block scales have the last word: check --deep
    p.repair = Repair::exact;
  }

  // Engines multiply the inputs of a fused matrix once, or not at all.
  void prescales(const std::vector<size_t>& group) {
    const Stored* with = nullptr;
    std::string without;
    for (size_t i : group) {
      const Module& m = c_.modules[i];
      if (const Stored* s = m.part(Role::prescale); s != nullptr)
        with = s;
      else
        without += (without.empty() ? "" : ", ") + m.path;
    }
    if (with == nullptr || without.empty()) return;
    diag_.report(
        "fused-prescale-mismatch",
        {.file = files_[with->file], .tensor = with->tensor, .module = c_.topology.modules[static_cast<size_t>(c_.modules[group.front()].topology)].fused},
        "none for " + without, "one for each module that reads the same input, or for none");
  }

  // Engines that hold one second-level scale for all experts would lose the smallest.
  void experts(const std::vector<const Module*>& siblings) {
    const Stored *least = nullptr, *largest = nullptr;
    const Module* of_least = nullptr;
    for (const Module* m : siblings) {
      const Stored* s = m->part(Role::global);
      if (s == nullptr || !s->value || !(*s->value > 0) || std::isinf(*s->value)) return;
      if (least == nullptr || multiplier(*s) < multiplier(*least)) least = s, of_least = m;
      if (largest == nullptr || multiplier(*s) > multiplier(*largest)) largest = s;
    }
    if (least == nullptr || multiplier(*largest) <= experts_apart * multiplier(*least)) return;
    diag_.report(
        "expert-scales-apart", {.file = files_[least->file], .tensor = least->tensor, .module = of_least->path},
        fmt::format("{} = {}, {:.3g} times below that of {}", least->tensor, *least->value, multiplier(*largest) / multiplier(*least), largest->tensor),
        fmt::format("second-level scales of a layer's experts within {} times of each other", experts_apart));
  }

  void explained(const Module& m) {
    if (m.part(Role::code) != nullptr && !m.scheme && m.why.empty())
      diag_.report("module-unexplained", {.module = m.path}, "no scheme and no reason for having none", "one of the two");
  }

 private:
  const Checkpoint& c_;
  const std::vector<std::string>& files_;
  Diagnostics& diag_;
};

}  // namespace

std::vector<std::vector<size_t>> fused_groups(const Checkpoint& c) {
  std::map<std::string_view, std::vector<size_t>> by_name;
  for (size_t i = 0; i < c.modules.size(); ++i) {
    const int t = c.modules[i].topology;
    if (t < 0) continue;
    const std::string& fused = c.topology.modules[static_cast<size_t>(t)].fused;
    if (!fused.empty() && c.modules[i].part(Role::code) != nullptr) by_name[fused].push_back(i);
  }
  std::vector<std::vector<size_t>> groups;
  for (auto& [name, members] : by_name)
    if (members.size() > 1) groups.push_back(std::move(members));
  return groups;
}

double multiplier(const Stored& s) {
  return s.form == ScaleForm::divide ? 1 / *s.value : *s.value;
}

const std::string& fused_name(const Checkpoint& c, const FusedMismatch& f) {
  return c.topology.modules[static_cast<size_t>(c.modules[f.group.front()].topology)].fused;
}

std::vector<FusedMismatch> fused_mismatches(const Checkpoint& c) {
  std::vector<FusedMismatch> out;
  for (const std::vector<size_t>& group : fused_groups(c)) {
    for (Role role : {Role::global, Role::input_scale}) {
      FusedMismatch f{.role = role, .group = group, .largest = group.front()};
      bool judged = true, differ = false;
      for (size_t i : group) {
        const Module& m = c.modules[i];
        const Stored* s = m.part(role);
        judged = judged && s != nullptr && s->value && m.scheme && m.scheme->weight.two_level() && *s->value > 0 && !std::isinf(*s->value);
        if (!judged) break;
        const double v = multiplier(*s), most = multiplier(*c.modules[f.largest].part(role));
        differ |= v != most;
        if (v > most) f.largest = i;
      }
      if (judged && differ) out.push_back(std::move(f));
    }
  }
  return out;
}

void verify(const Checkpoint& c, const std::vector<std::string>& file_names, Diagnostics& diag) {
  Verifier v(c, file_names, diag);
  for (const Module& m : c.modules) {
    v.scalars(m);
    v.explained(m);
  }
  for (const FusedMismatch& f : fused_mismatches(c)) v.fused(f);
  for (const std::vector<size_t>& group : fused_groups(c)) v.prescales(group);
  std::map<std::pair<int, std::string_view>, std::vector<const Module*>> experts;
  for (const Module& m : c.modules) {
    if (m.topology < 0 || m.part(Role::global) == nullptr) continue;
    const arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
    if (!t.of_experts.empty()) experts[{t.layer, t.of_experts}].push_back(&m);
  }
  for (const auto& [row, siblings] : experts) v.experts(siblings);
}

}  // namespace qb::ir
