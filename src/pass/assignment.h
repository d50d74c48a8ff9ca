// Which module gets which scheme: a configuration against the modules of a model.
//
// Later lines win over earlier ones:
//   what the checkpoint has;  "default" (linears and experts);  the module's kind;  the overrides that match, in their order;
//   `ignore`, and modules that no producer quantizes: they stay as they are.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "arch/match.h"
#include "base/diagnostics.h"
#include "base/regex.h"
#include "ir/checkpoint.h"
#include "pass/quant_config.h"

namespace qb::pass {

// Rules of users: a regex, a shell pattern, a module's name, a fused name or a name that stands anywhere between dots (k_proj, layers.3, model.layers.3).
class UserRule {
 public:
  // `from` is for messages: what the user wrote it behind. Problems: pattern-invalid.
  static std::optional<UserRule> compile(const std::string& text, std::string_view from, RegexCompiler, Diagnostics&);
  bool hits(const arch::Module&);
  const std::string& text() const { return rule_.text(); }
  bool used() const { return used_; }

 private:
  explicit UserRule(NameRule rule) : rule_(std::move(rule)) {}
  NameRule rule_;
  bool used_ = false;
};

struct Assigned {
  std::optional<ir::Scheme> scheme;  // absent: plain numbers
  std::string recipe, algorithm;     // where one is named
  std::string why;                   // what decided
  bool says_weight = false;          // the configuration does, not the checkpoint
  bool named = false;                // by its kind or an override
};

ModuleKind kind_of(const arch::Module&, const arch::Topology&);

class Assignment {
 public:
  // Nothing, after a problem: pattern-invalid. The configuration must outlive the result.
  static std::optional<Assignment> compile(const QuantConfig&, RegexCompiler, Diagnostics&);
  // `now` is the scheme that the checkpoint has for it. Not thread-safe: it notes which rules hit.
  Assigned of(const arch::Module&, const arch::Topology&, const std::optional<ir::Scheme>& now);
  // Problems: ignore-ghost, quantization-ghost for kinds and overrides that named no module.
  void report_unused(Diagnostics&) const;

 private:
  const QuantConfig* config_ = nullptr;
  std::vector<UserRule> ignore_, overrides_;
  std::array<bool, 4> seen_{};
};

}  // namespace qb::pass
