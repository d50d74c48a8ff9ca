// Which kernel runs a problem, and why: a pure function of (problem, processor, kernels, policy) that returns the winner and every loser with its reason.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "host/cpu.h"
#include "kernel/kernel.h"
#include "oracle/profile.h"

namespace qb::oracle {

struct Policy {
  std::vector<std::string> prefer, deny;   // kernel names or shell patterns; the first preferred one that is legal wins
  bool reference = false;                  // only reference kernels
  std::shared_ptr<const Profile> profile;  // costs as measured on this machine; null: the model's
};

struct Candidate {
  const kernel::Kernel* kernel = nullptr;
  bool ok = false;
  std::string why;     // of a loser: "needs avx512_bf16, this machine has avx2"; "slower: 812 ns against 110 ns"
  double cost_ns = 0;  // of legal ones
  std::string note;    // of legal ones, where there is something to be known
};

struct Choice {
  const kernel::Kernel* winner = nullptr;
  std::vector<Candidate> considered;  // all kernels, the winner first
};

// An error lists every kernel with its reason.
Result<Choice> choose(const kernel::Problem&, const host::Cpu&, std::span<const kernel::Kernel* const>, const Policy&);

// One packing serves all batch sizes: the layout that is cheapest over `m_values` (each weighed equally in relative cost), and its kernel for each.
struct LinearPlan {
  ir::Layout code_layout = ir::Layout::rows, scale_layout = ir::Layout::rows;
  std::vector<std::pair<int64_t, Choice>> by_m;       // ascending
  const Choice& choice_for(int64_t m) const;          // of the nearest m from below, or the least. Precondition: by_m has any
  const kernel::Kernel* kernel_for(int64_t m) const;  // its winner; null without by_m
};
Result<LinearPlan> plan_linear(kernel::Problem, std::span<const int64_t> m_values, const host::Cpu&, std::span<const kernel::Kernel* const>, const Policy&);

}  // namespace qb::oracle
