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
// A scale of activations below this stands for a largest input below 448 times as much, 5e-5: no hidden state of a model is so small. Observers put float32's
// epsilon there where they saw nothing.
constexpr double least_measured = 0x1p-23;
// So many times more tensors of one 16-bit dtype make the other one an oddity; checkpoints that mix them on purpose do so by the half or by the layer.
constexpr size_t odd_dtypes = 3;

// The path without the part that names the layer.
std::string_view in_layer(std::string_view path) {
  const size_t layers = path.find(".layers."), number = layers == path.npos ? path.npos : path.find('.', layers + 8);
  return number == path.npos ? path : path.substr(number + 1);
}

class Verifier {
 public:
  Verifier(const Checkpoint& c, const std::vector<std::string>& files, Diagnostics& diag) : c_(c), files_(files), diag_(diag) {}

  void scalars(const Module& m) {
    for (const Stored& s : m.parts) {
      if (!s.value || !is_factor(s.role)) continue;
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
    Problem& p = diag_.report("fused-scale-mismatch", place, names, "one second-level scale: engines fuse these modules and take the largest for all of them");
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
      if (s == nullptr) continue;
      if (!s->value || !(*s->value > 0) || std::isinf(*s->value)) return;
      if (least == nullptr || multiplier(*s) < multiplier(*least)) least = s, of_least = m;
      if (largest == nullptr || multiplier(*s) > multiplier(*largest)) largest = s;
    }
    if (least == nullptr || multiplier(*largest) <= experts_apart * multiplier(*least)) return;
    diag_.report(
        "expert-scales-apart", {.file = files_[least->file], .tensor = least->tensor, .module = of_least->path},
        fmt::format("{} = {}, {:.3g} times below that of {}", least->tensor, *least->value, multiplier(*largest) / multiplier(*least), largest->tensor),
        fmt::format("second-level scales of a layer's experts within {} times of each other", experts_apart));
  }

  // Scales of experts that no calibration sample reached: what observers begin with, beside siblings that were measured.
  void uncalibrated(const std::vector<const Module*>& siblings) {
    const auto begun = [](double v) { return v == 1 || (v > 0 && v <= least_measured); };
    std::vector<const Stored*> left;
    const Module* first = nullptr;
    const Stored* measured = nullptr;
    for (const Module* m : siblings) {
      const Stored* s = m->part(Role::input_scale);
      if (s == nullptr || !s->value) continue;
      if (!begun(multiplier(*s))) {
        measured = s;
        continue;
      }
      if (left.empty()) first = m;
      left.push_back(s);
    }
    if (left.empty() || measured == nullptr) return;
    diag_.report(
        "expert-uncalibrated", {.file = files_[left.front()->file], .tensor = left.front()->tensor, .module = first->path},
        fmt::format("{} = {}{}", left.front()->tensor, *left.front()->value, left.size() > 1 ? fmt::format(" (and {} more experts)", left.size() - 1) : ""),
        fmt::format("a measured scale, as {} = {} is", measured->tensor, *measured->value));
  }

  // F16 among BF16, or the other way round. `what`: the model's own numbers, or those of its quantized weights.
  void dtypes(std::string_view what, const std::vector<std::pair<const Module*, const Stored*>>& parts) {
    std::vector<std::pair<const Module*, const Stored*>> f16, bf16;
    for (const auto& part : parts) (part.second->container == Elem::f16 ? f16 : bf16).push_back(part);
    const auto &few = f16.size() < bf16.size() ? f16 : bf16, &many = f16.size() < bf16.size() ? bf16 : f16;
    if (few.empty() || few.size() * odd_dtypes > many.size()) return;
    const auto& [m, s] = few.front();
    diag_.report("dtype-odd", {.file = files_[s->file], .tensor = s->tensor, .module = m->path},
                 fmt::format("{}{}", info(s->container).safetensors, few.size() > 1 ? fmt::format(" (and {} more)", few.size() - 1) : ""),
                 fmt::format("{}, as {} of {} have", info(many.front().second->container).safetensors, many.size(), what));
  }

  // Modules of one row in all layers, and those that read the same input: with such a part or without. Those that the family and config.json promise it to
  // must have it by themselves.
  void parts(const std::vector<const Module*>& alike, Role role, std::string_view what, bool arch::Module::*promised = nullptr) {
    const Module *with = nullptr, *without = nullptr;
    for (const Module* m : alike) {
      if (promised != nullptr && c_.topology.modules[static_cast<size_t>(m->topology)].*promised) {
        if (m->part(role) == nullptr)
          diag_.report("part-missing", {.module = m->path}, fmt::format("no {}", what),
                       fmt::format("one, as each {} of this family and config.json has", in_layer(m->path)));
        continue;
      }
      const Module*& kind = m->part(role) != nullptr ? with : without;
      if (kind == nullptr) kind = m;
    }
    if (with == nullptr || without == nullptr) return;
    diag_.report("part-missing", {.module = without->path}, fmt::format("no {}", what), fmt::format("one, as {} has", with->path));
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
  std::vector<std::pair<const Module*, const Stored*>> numbers, scales;
  for (const Module& m : c.modules) {
    if (m.topology < 0 || c.topology.modules[static_cast<size_t>(m.topology)].structural) continue;
    for (const Stored& s : m.parts) {
      if (s.container != Elem::f16 && s.container != Elem::bf16) continue;
      const bool plain = s.role == Role::plain || s.role == Role::bias || s.role == Role::code;
      (plain ? numbers : scales).emplace_back(&m, &s);
    }
  }
  std::map<std::string, std::vector<const Module*>> alike, same_scheme;
  for (const Module& m : c.modules) {
    const arch::Module* t = m.topology < 0 ? nullptr : &c.topology.modules[static_cast<size_t>(m.topology)];
    if (t == nullptr || t->structural || t->layer < 0) continue;
    // Attention has no weight of its own; other modules that are missing altogether have been reported.
    if (t->plain.empty() ? t->optional || m.parts.empty() : m.parts.empty() && t->optional && m.kind != arch::Kind::attention) continue;
    const std::string row(!t->of_experts.empty() ? t->of_experts : in_layer(t->fused.empty() ? t->path : t->fused));
    alike[row].push_back(&m);
    if (m.scheme) same_scheme[to_string(*m.scheme)].push_back(&m);
  }
  for (const auto& [row, modules] : alike) {
    const arch::Module& t = c.topology.modules[static_cast<size_t>(modules.front()->topology)];
    v.parts(modules, Role::bias, "bias", &arch::Module::bias_given);
    if (!t.plain.empty()) v.parts(modules, Role::plain, t.plain, &arch::Module::plain_given);
  }
  for (const auto& [row, modules] : same_scheme) {
    v.parts(modules, Role::zero, "zero points");
    v.parts(modules, Role::order, "order of groups");
  }
  v.dtypes("the tensors that are not quantized", numbers);
  v.dtypes("the numbers that belong to quantized weights", scales);
  for (const FusedMismatch& f : fused_mismatches(c)) v.fused(f);
  for (const std::vector<size_t>& group : fused_groups(c)) v.prescales(group);
  std::map<std::pair<int, std::string_view>, std::vector<const Module*>> experts;
  for (const Module& m : c.modules) {
    if (m.topology < 0 || !m.scheme) continue;
    const arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
    if (!t.of_experts.empty()) experts[{t.layer, t.of_experts}].push_back(&m);
  }
  for (const auto& [row, siblings] : experts) {
    v.experts(siblings);
    v.uncalibrated(siblings);
  }
}

}  // namespace qb::ir
