#include "bridge/advise.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/json.h"

namespace qb {
namespace {

using target::Finding;
using target::Outcome;

// Writing asks surveys about numbers only; whether a dialect has words for a scheme does not depend on them.
class NoData : public Surveyor {
 public:
  Result<prog::SurveyResult> ask(const prog::Survey&) override { return prog::SurveyResult{}; }
};

// The producer's word in the documents of an export.
std::string label_of(const Export& e) {
  for (const auto& [name, document] : e.documents) {
    if (name != "config.json") continue;
    const Json* q = find(*document, "quantization_config");
    if (q == nullptr) return {};
    for (const char* key : {"quant_algo", "format", "checkpoint_format", "version", "quant_method"})
      if (const std::string_view label = string_at(*q, key); !label.empty()) return std::string(label);
  }
  return {};
}

// The checkpoint as it would be in another dialect; nothing where that has no words for it.
std::optional<ir::Checkpoint> written_as(const Session& s, const Dialect& dialect) {
  if (dialect.write == nullptr) return std::nullopt;
  NoData surveyor;
  Export plan;
  Diagnostics diag;
  if (!dialect.write(s.checkpoint, {.package = s.package, .facts = s.facts, .surveyor = surveyor}, plan, diag)) return std::nullopt;
  ir::Checkpoint c = s.checkpoint;
  c.dialect = dialect.name;
  c.quant_algo = label_of(plan);
  std::map<std::string, ir::Scheme> changed;
  for (const Export::SchemeChange& change : plan.scheme_changes)
    if (const Result<ir::Scheme> to = ir::parse_scheme(change.to))
      for (const std::string& path : change.modules) changed.emplace(path, *to);
  for (ir::Module& m : c.modules) {
    if (c.quant_algo.empty()) m.scheme.reset();
    if (const auto to = changed.find(m.path); m.scheme && to != changed.end()) m.scheme = to->second;
  }
  if (c.quant_algo.empty()) c.kv.reset();
  return c;
}

bool convertible(const Session& s) {
  const auto problems = s.diag.all();
  return s.readable && std::all_of(problems.begin(), problems.end(),
                                   [](const Problem& p) { return p.severity != Severity::error || p.repair == Repair::exact || carried_over(p); });
}

// The dialect to convert to: the first one, quantized ones first, that the engine is known to load.
std::string conversion(const Session& s, const target::Target& target) {
  if (!convertible(s)) return {};
  std::vector<const Dialect*> order(dialects().begin(), dialects().end());
  std::stable_partition(order.begin(), order.end(), [](const Dialect* d) { return d->name != "dense"; });
  for (const Dialect* d : order) {
    if (d == s.dialect) continue;
    const std::optional<ir::Checkpoint> c = written_as(s, *d);
    if (c && target::summary(target::judge(target, *c, {})) == Outcome::loads)
      return fmt::format("quantbridge convert {} OUT --to {}{}", s.path.string(), d->name, d->name == "dense" ? " (unquantized, so larger)" : "");
  }
  return {};
}

}  // namespace

std::vector<Finding> advise(const Session& s, const target::Target& target) {
  std::vector<Finding> findings = target::judge(target, s.checkpoint, s.diag.all());
  std::string action;
  bool asked = false;
  for (Finding& f : findings) {
    if (!f.problem.empty() || f.outcome == Outcome::loads || f.outcome == Outcome::unknown) continue;
    if (!asked) action = conversion(s, target);
    asked = true;
    f.action = action;
  }
  return findings;
}

}  // namespace qb
