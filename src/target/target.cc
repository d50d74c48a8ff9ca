#include "target/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "arch/match.h"
#include "dialect/compressed_tensors_config.h"
#include "dialect/modelopt_rows.h"

namespace qb::target {
namespace {

constexpr Source arithmetic{"IEEE 754: what NaN, infinity and zero do in sums and products", "2019"};
constexpr Source safetensors{"github.com/huggingface/safetensors: safetensors/src/tensor.rs", "45c8c2cbd1a8"};

constexpr ProblemRow common[] = {
    {"scale-nan code-nan weight-not-finite", "", Outcome::wrong, "Loaded as it is; NaN goes through every product and sum into the logits.", arithmetic},
    {"scale-inf", "", Outcome::wrong, "Loaded as it is; products become infinite or NaN.", arithmetic},
    {"scale-zero", "", Outcome::wrong, "Loaded as it is; the layer's weights or activations become zero, or a division by zero gives infinity.", arithmetic},
};

constexpr ProblemRow container[] = {
    {"header-* tensor-shape-overflow tensor-size-mismatch tensor-overlap tensor-hole file-truncated file-trailing-bytes", "", Outcome::refused,
     "The safetensors library refuses the file (invalid header, or its offsets do not cover it).", safetensors},
};

bool any_match(std::string_view patterns, std::string_view text) {
  if (patterns.empty()) return true;
  while (!patterns.empty()) {
    const size_t end = std::min(patterns.find(' '), patterns.size());
    if (end > 0 && shell_match(patterns.substr(0, end), text)) return true;
    patterns.remove_prefix(std::min(end + 1, patterns.size()));
  }
  return false;
}

bool allowed(std::string_view may, const ir::Features& f) {
  if (may == "*") return true;
  const auto has = [&](std::string_view word) { return may.find(word) != may.npos; };
  return (!f.prescale || has("prescale")) && (f.lowrank == 0 || has("lowrank")) && (!f.actorder || has("actorder")) && (!f.sparse24 || has("sparse24")) &&
         (!f.transform || has("transform"));
}

bool says_mixed(std::string_view label) {
  return label == "MIXED_PRECISION" || label == "mixed-precision";
}

bool is_expert(const ir::Checkpoint& c, const ir::Module& m) {
  return m.kind == arch::Kind::expert || (m.topology >= 0 && !c.topology.modules[static_cast<size_t>(m.topology)].of_experts.empty());
}

std::string weight_text(const ir::Scheme& s) {
  return to_string(s.weight);
}
std::string input_text(const ir::Scheme& s) {
  return s.input ? to_string(*s.input) : "none";
}

const Row* row_of(const Target& t, const ir::Checkpoint& c, const ir::Module& m, bool mixed) {
  const std::string_view label = label_of(c, *m.scheme);
  const std::string weight = weight_text(*m.scheme), input = input_text(*m.scheme);
  for (const Row& r : t.rows) {
    if (!any_match(r.dialect, c.dialect) || !any_match(r.label, label) || !any_match(r.weight, weight) || !any_match(r.input, input)) continue;
    if (!allowed(r.may, m.scheme->features) || (r.where == Where::experts && !is_expert(c, m)) || (r.where == Where::mixed && !mixed)) continue;
    if ((r.outputs > 1 || r.inputs > 1) && m.n % r.outputs == 0 && m.k % r.inputs == 0) continue;
    return &r;
  }
  return nullptr;
}

const ProblemRow* row_of(std::span<const ProblemRow> rows, const ir::Checkpoint& c, const Problem& p) {
  for (const ProblemRow& r : rows)
    if (any_match(r.code, p.code) && any_match(r.dialect, c.dialect) && any_match(r.module, p.module)) return &r;
  return nullptr;
}

class Judge {
 public:
  Judge(const Target& target, const ir::Checkpoint& checkpoint) : t_(target), c_(checkpoint) {}

  void linears() {
    std::set<std::string> schemes;
    for (const ir::Module& m : c_.modules)
      if (m.scheme) schemes.insert(to_string(*m.scheme));
    const bool mixed = says_mixed(c_.quant_algo) || (schemes.size() > 1 && c_.dialect != "modelopt");  // ModelOpt has a label of its own for it
    std::map<std::pair<const Row*, std::string>, std::vector<std::string>> groups;
    std::vector<std::pair<const Row*, std::string>> order;  // of the model
    for (const ir::Module& m : c_.modules) {
      if (!m.scheme) continue;
      const std::pair key{row_of(t_, c_, m, mixed), to_string(*m.scheme)};
      std::vector<std::string>& modules = groups[key];
      if (modules.empty()) order.push_back(key);
      modules.push_back(m.path);
    }
    for (const auto& key : order) {
      Finding f =
          key.first != nullptr
              ? Finding{.outcome = key.first->outcome, .path = std::string(key.first->path), .why = std::string(key.first->why), .source = key.first->source}
              : nothing_known(
                    fmt::format("what it does with {}{}{} of {}", key.second, c_.quant_algo.empty() ? "" : " under the label ", c_.quant_algo, c_.dialect));
      f.scheme = key.second;
      f.modules = std::move(groups[key]);
      out_.push_back(std::move(f));
    }
    if (schemes.empty() && c_.dialect == "dense") plain();
  }

  void cache() {
    if (!c_.kv) return;
    const std::string kv = to_string(*c_.kv), scheme = kv.substr(kv.find(':') + 1);
    Finding f = nothing_known(fmt::format("what it does with a {} cache of {}", scheme, c_.dialect));
    for (const KvRow& r : t_.kv)
      if (any_match(r.dialect, c_.dialect) && any_match(r.scheme, scheme)) {
        f = {.outcome = r.outcome, .path = std::string(r.path), .why = std::string(r.why), .source = r.source};
        break;
      }
    f.scheme = kv;
    out_.push_back(std::move(f));
  }

  void problems(std::span<const Problem> all) {
    std::map<std::pair<const ProblemRow*, std::string>, size_t> seen;
    for (const Problem& p : all) {
      const ProblemKind* kind = find_problem_kind(p.code);
      if (p.severity == Severity::note || (kind != nullptr && kind->engines == "-")) continue;
      const ProblemRow* row = row_of(t_.problems, c_, p);
      if (row == nullptr) row = row_of(common, c_, p);
      if (row == nullptr && t_.safetensors_library) row = row_of(container, c_, p);
      const auto [it, added] = seen.emplace(std::pair{row, p.code}, out_.size());
      if (added) {
        Finding f = row != nullptr ? Finding{.outcome = row->outcome, .why = std::string(row->why), .source = row->source}
                                   : nothing_known(fmt::format("what it does with this; of engines in general: {}", kind != nullptr ? kind->engines : "-"));
        f.problem = p.code;
        f.action = p.action;
        out_.push_back(std::move(f));
      }
      if (!p.module.empty()) out_[it->second].modules.push_back(p.module);
    }
  }

  // A quantization config over plain numbers, which engines may take at its word.
  void nothing_found() {
    if (!out_.empty() || c_.modules.empty()) return;
    out_.push_back(nothing_known(fmt::format("what it does with plain weights beside a quantization config of {}", c_.dialect)));
    out_.back().scheme = std::string(info(c_.model_dtype).name);
  }

  std::vector<Finding> take() {
    std::stable_sort(out_.begin(), out_.end(), [](const Finding& a, const Finding& b) { return a.outcome < b.outcome; });
    return std::move(out_);
  }

 private:
  static Finding nothing_known(const std::string& what) { return {.outcome = Outcome::unknown, .why = "Not known: " + what}; }

  void plain() {
    ir::Module m;
    m.scheme = ir::Scheme{.weight = {.code = c_.model_dtype}};
    const Row* row = row_of(t_, c_, m, false);
    Finding f = row != nullptr ? Finding{.outcome = row->outcome, .path = std::string(row->path), .why = std::string(row->why), .source = row->source}
                               : nothing_known("what it does with unquantized weights");
    f.scheme = std::string(info(c_.model_dtype).name);
    out_.push_back(std::move(f));
  }

  const Target& t_;
  const ir::Checkpoint& c_;
  std::vector<Finding> out_;
};

}  // namespace

std::string_view to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::refused:
      return "refused";
    case Outcome::wrong:
      return "wrong";
    case Outcome::unknown:
      return "unknown";
    case Outcome::loads:
      return "loads";
  }
  return {};
}

const Target* find_target(std::string_view name) {
  for (const Target* t : targets())
    if (t->name == name) return t;
  return nullptr;
}

std::string target_names() {
  std::string out;
  for (const Target* t : targets()) out += (out.empty() ? "" : ", ") + std::string(t->name);
  return out;
}

std::span<const ProblemRow> common_problems() {
  return common;
}
std::span<const ProblemRow> safetensors_problems() {
  return container;
}

std::string_view label_of(const ir::Checkpoint& c, const ir::Scheme& s) {
  if (!says_mixed(c.quant_algo)) return c.quant_algo;
  if (c.dialect == "compressed_tensors") return ct_format(s);
  const qb::Row* row = row_for(modelopt::rows(), s);
  return row != nullptr ? row->label : std::string_view();
}

std::vector<Finding> judge(const Target& target, const ir::Checkpoint& checkpoint, std::span<const Problem> problems) {
  Judge j(target, checkpoint);
  j.linears();
  j.cache();
  j.problems(problems);
  j.nothing_found();
  return j.take();
}

Outcome summary(std::span<const Finding> findings) {
  return findings.empty() ? Outcome::unknown : findings.front().outcome;
}

}  // namespace qb::target
