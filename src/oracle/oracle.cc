#include "oracle/oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace qb::oracle {
namespace {

using kernel::Kernel;
using kernel::Problem;
using Layouts = std::pair<ir::Layout, ir::Layout>;

// A shell pattern: * stands for any run of characters, ? for one.
bool matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = pattern.npos, retry = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != pattern.npos) {
      p = star + 1;
      n = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool is_reference(const Kernel& k) {
  return k.code_layout == ir::Layout::rows;
}

host::Feature missing(host::Feature needs, host::Feature have) {
  return static_cast<host::Feature>(static_cast<uint32_t>(needs) & ~static_cast<uint32_t>(have));
}

Candidate judge(const Kernel& k, const Problem& p, const host::Cpu& cpu, const Policy& policy) {
  Candidate c{.kernel = &k, .ok = false, .why = "", .cost_ns = 0, .note = ""};
  for (const std::string& pattern : policy.deny) {
    if (matches(pattern, k.name)) return c.why = fmt::format("denied by '{}'", pattern), c;
  }
  if (policy.reference && !is_reference(k)) return c.why = "only reference kernels are wanted", c;
  if (!host::covers(cpu.features, k.needs)) {
    return c.why = fmt::format("needs {}, {} has {}", host::to_string(missing(k.needs, cpu.features)), cpu.name, host::to_string(cpu.features)), c;
  }
  const kernel::Verdict v = k.accepts(p);
  if (!v.ok) return c.why = v.why, c;
  c.ok = true;
  c.note = v.note;
  c.cost_ns = policy.profile ? policy.profile->cost_ns(k, p, cpu) : k.cost_ns(p, cpu);
  return c;
}

// The index of the first preferred pattern that the name matches; without one, behind all of them.
size_t preference(const Candidate& c, const Policy& policy) {
  const auto it = std::find_if(policy.prefer.begin(), policy.prefer.end(), [&](const std::string& p) { return matches(p, c.kernel->name); });
  return static_cast<size_t>(it - policy.prefer.begin());
}

Error nothing_runs(const Problem& p, const std::vector<Candidate>& all) {
  std::string what = "no kernel runs " + kernel::to_string(p);
  for (const Candidate& c : all) what += fmt::format("; {}: {}", c.kernel->name, c.why);
  return Error{Errc::invalid_argument, what};
}

}  // namespace

Result<Choice> choose(const Problem& p, const host::Cpu& cpu, std::span<const Kernel* const> kernels, const Policy& policy) {
  Choice choice;
  for (const Kernel* k : kernels) choice.considered.push_back(judge(*k, p, cpu, policy));
  std::sort(choice.considered.begin(), choice.considered.end(), [&](const Candidate& a, const Candidate& b) {
    if (a.ok != b.ok) return a.ok;
    if (!a.ok) return a.kernel->name < b.kernel->name;
    const size_t pa = preference(a, policy), pb = preference(b, policy);
    return pa != pb ? pa < pb : a.cost_ns != b.cost_ns ? a.cost_ns < b.cost_ns : a.kernel->name < b.kernel->name;
  });
  if (choice.considered.empty() || !choice.considered.front().ok) return nothing_runs(p, choice.considered);
  const Candidate& best = choice.considered.front();
  choice.winner = best.kernel;
  for (Candidate& c : choice.considered) {
    if (!c.ok || &c == &best) continue;
    c.ok = false;
    const bool preferred = preference(best, policy) < preference(c, policy);
    c.why = preferred ? fmt::format("{} is preferred", best.kernel->name) : fmt::format("slower: {:.0f} ns against {:.0f} ns", c.cost_ns, best.cost_ns);
  }
  return choice;
}

const Choice& LinearPlan::choice_for(int64_t m) const {
  const Choice* nearest = &by_m.front().second;
  for (const auto& [least, choice] : by_m) {
    if (least <= m) nearest = &choice;
  }
  return *nearest;
}

const Kernel* LinearPlan::kernel_for(int64_t m) const {
  return by_m.empty() ? nullptr : choice_for(m).winner;
}

// For each pair of layouts, the kernels that read it choose among themselves for each m; of the pairs that serve every m, the one with the least sum of cost
// relative to the best of all pairs wins.
Result<LinearPlan> plan_linear(Problem p, std::span<const int64_t> m_values, const host::Cpu& cpu, std::span<const Kernel* const> kernels,
                               const Policy& policy) {
  std::vector<int64_t> ms(m_values.begin(), m_values.end());
  std::sort(ms.begin(), ms.end());
  ms.erase(std::unique(ms.begin(), ms.end()), ms.end());
  if (ms.empty()) return Error{Errc::invalid_argument, "a plan needs at least one number of tokens"};
  std::map<Layouts, std::vector<Choice>> serving;
  for (const Kernel* k : kernels) serving.try_emplace({k->code_layout, k->scale_layout});
  std::vector<double> best;
  std::vector<size_t> wish(ms.size(), policy.prefer.size());
  for (size_t i = 0; i < ms.size(); ++i) {
    p.m = ms[i];
    QB_ASSIGN(const Choice all, choose(p, cpu, kernels, policy));
    best.push_back(all.considered.front().cost_ns);
    wish[i] = preference(all.considered.front(), policy);
    for (auto& [layouts, choices] : serving) {
      std::vector<const Kernel*> readers;
      for (const Kernel* k : kernels) {
        if (Layouts{k->code_layout, k->scale_layout} == layouts) readers.push_back(k);
      }
      auto r = choose(p, cpu, readers, policy);
      if (!r) continue;
      // The others keep the reason that they have among all.
      for (const Candidate& c : all.considered) {
        if (Layouts{c.kernel->code_layout, c.kernel->scale_layout} == layouts) continue;
        r->considered.push_back(c);
        if (c.why.empty())
          r->considered.back().why =
              fmt::format("reads {}, the weight lies in {} for all batch sizes", ir::to_string(c.kernel->code_layout), ir::to_string(layouts.first));
        r->considered.back().ok = false;
      }
      choices.push_back(std::move(*r));
    }
  }
  const std::pair<const Layouts, std::vector<Choice>>* winner = nullptr;
  std::pair<size_t, double> least{};
  for (const auto& entry : serving) {
    if (entry.second.size() != ms.size()) continue;
    std::pair<size_t, double> cost{0, 0};  // wishes not fulfilled, then relative cost
    for (size_t i = 0; i < ms.size(); ++i) {
      const Candidate& c = entry.second[i].considered.front();
      cost.first += preference(c, policy) > wish[i] ? 1 : 0;
      cost.second += c.cost_ns / best[i];
    }
    if (winner == nullptr || cost < least) winner = &entry, least = cost;
  }
  if (winner == nullptr) return Error{Errc::invalid_argument, "no layout serves all batch sizes of " + kernel::to_string(p)};
  LinearPlan plan;
  plan.code_layout = winner->first.first;
  plan.scale_layout = winner->first.second;
  for (size_t i = 0; i < ms.size(); ++i) plan.by_m.emplace_back(ms[i], winner->second[i]);
  return plan;
}

}  // namespace qb::oracle
