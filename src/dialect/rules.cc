// Exclude and ignore lists: which rule covers a module, and which entries are not what their author meant.
#include <fmt/format.h>

#include <algorithm>

#include "dialect/reading.h"

namespace qb {

void Reading::set_rules(std::vector<NameRule> rules, std::string from) {
  rules_ = RuleList(std::move(rules));
  hits_.assign(rules_.size(), 0);
  rules_from_ = std::move(from);
  literals_.clear();
  for (size_t i = 0; i < rules_.size(); ++i)
    if (rules_[i].literal() && !rules_[i].text().empty()) literals_.emplace(rules_[i].text(), i);
}

const NameRule* Reading::excluded_by(const ir::Module& m) {
  const size_t first = rules_.first(m.path, m.kind);
  if (first == RuleList::none) return nullptr;
  ++hits_[first];
  return &rules_[first];
}

namespace {

// The entry without a prefix that multimodal exports carry, or empty when it has none.
std::string without_language_model(std::string_view entry) {
  if (entry.starts_with("language_model.")) return std::string(entry.substr(15));
  if (entry.starts_with("model.language_model.")) return "model." + std::string(entry.substr(21));
  return {};
}

}  // namespace

// What a literal entry that does not name the module may still have meant; what the tensors say settles it.
Reading::Meant Reading::meant_by(const NameRule& rule, const ir::Module& m) const {
  if (!rule.literal() || m.scheme || m.part(ir::Role::code) == nullptr) return Meant::no;
  const std::string& entry = rule.text();
  const std::string stripped = without_language_model(entry);
  if (out.topology.modules[static_cast<size_t>(m.topology)].fused == entry) return Meant::fused;
  if (!stripped.empty() && (m.path == stripped || m.path.starts_with(stripped + "."))) return Meant::prefix;
  return m.path.starts_with(entry + ".") ? Meant::container : Meant::no;
}

// Calls with every text of an entry that may mean the module: its fused name, and what it lies below with the prefixes that meant_by() takes away.
void Reading::names_that_mean(const ir::Module& m, const std::function<void(std::string_view)>& found) const {
  found(out.topology.modules[static_cast<size_t>(m.topology)].fused);
  for (size_t end = m.path.find('.');; end = m.path.find('.', end + 1)) {
    const std::string above = m.path.substr(0, end);
    if (end != m.path.npos) found(above);
    found("language_model." + above);
    if (above.starts_with("model.")) found("model.language_model." + above.substr(6));
    if (end == m.path.npos) return;
  }
}

std::string Reading::why_plain(const ir::Module& m, const NameRule* rule) {
  if (rule != nullptr) return fmt::format("{}: '{}'", rules_from_, rule->text());
  if (m.kind == arch::Kind::embedding) return "embeddings are not quantized unless they have scales";
  if (m.path == out.topology.head) return "the head is left out by default";
  return report_unlisted(m);
}

std::string Reading::why_quantized(const ir::Module& m, const NameRule* rule, std::string why) {
  if (rule == nullptr) return why;
  diag.report("excluded-but-quantized", {.file = rules_from_, .tensor = named_tensor(m), .module = m.path},
              fmt::format("quantized, and excluded by '{}'", rule->text()), "no entry that leaves it out; the tensors decide");
  return fmt::format("{}, although '{}' excludes it", why, rule->text());
}

std::string_view Reading::named_tensor(const ir::Module& m) const {
  if (const TensorInfo* weight = find(m, "weight"); weight != nullptr) return weight->name;
  const std::vector<const TensorInfo*> tensors = tensors_of(m);
  return tensors.empty() ? std::string_view(m.path) : tensors.front()->name;
}

void Reading::report_tied_embedding(const ir::Module& m) {
  if (m.kind != arch::Kind::embedding || !out.topology.tied_embeddings) return;
  diag.report("tied-embedding-quantized", {.file = "config.json", .tensor = named_tensor(m), .module = m.path},
              "a quantized embedding table that is also the head", "engines that apply its scale in both places");
}

std::string Reading::report_unlisted(const ir::Module& m) {
  size_t first = rules_.size();
  names_that_mean(m, [&](std::string_view name) {
    const auto it = literals_.find(name);
    if (it != literals_.end() && meant_by(rules_[it->second], m) != Meant::no) first = std::min(first, it->second);
  });
  if (first < rules_.size()) return fmt::format("{}: '{}', which means it", rules_from_, rules_[first].text());  // check_rules() reports the entry
  if (out.topology.modules[static_cast<size_t>(m.topology)].exempt) return "no producer quantizes it, and no list has to name it";
  const ir::Stored* code = m.part(ir::Role::code);
  const bool head = m.path == out.topology.head;
  diag.report(head ? "ignore-incomplete" : "layer-unquantized", {.file = rules_from_, .tensor = code != nullptr ? code->tensor : "", .module = m.path},
              "plain numbers without scales, and no entry that leaves it out",
              head ? fmt::format("an entry '{}'", m.path) : "scales, or an entry that leaves it out");
  return "plain numbers without scales; no rule names it";
}

void Reading::check_rules() {
  // Plain modules give their names to the entries that may mean them: entries are many, and so are modules.
  struct Guess {
    Meant meant = Meant::no;
    std::string modules;
    const ir::Module* last = nullptr;
  };
  std::unordered_map<std::string_view, Guess> guesses;  // by the entry's text
  for (const ir::Module& m : out.modules) {
    if (m.scheme || m.part(ir::Role::code) == nullptr) continue;
    names_that_mean(m, [&](std::string_view name) {
      const auto it = literals_.find(name);
      if (it == literals_.end() || hits_[it->second] > 0) return;
      const Meant how = meant_by(rules_[it->second], m);
      Guess& g = guesses[it->first];
      if (how == Meant::no || g.last == &m) return;
      g.meant = how;
      g.last = &m;
      if (g.modules.size() < 200) g.modules += (g.modules.empty() ? "" : ", ") + m.path;
    });
  }
  for (size_t i = 0; i < rules_.size(); ++i) {
    out.exclusions.push_back({rules_[i].text(), rules_from_, hits_[i]});
    const std::string& entry = rules_[i].text();
    if (hits_[i] > 0 || !rules_[i].literal()) continue;
    if (const ir::Module* m = module(entry); m != nullptr && m->parts.empty() && out.topology.modules[static_cast<size_t>(m->topology)].optional) continue;
    const auto guess = guesses.find(entry);
    const Meant meant = guess == guesses.end() ? Meant::no : guess->second.meant;
    const char* code = meant == Meant::fused       ? "ignore-fused-name"
                       : meant == Meant::prefix    ? "ignore-prefix"
                       : meant == Meant::container ? "ignore-container"
                                                   : "ignore-ghost";
    diag.report(code, {.file = rules_from_, .module = guess == guesses.end() ? std::string_view() : guess->second.modules},
                fmt::format("entry '{}'", escape(entry)),
                meant == Meant::fused       ? "the parts by their own names"
                : meant == Meant::prefix    ? fmt::format("'{}', the prefix that the tensors have", escape(without_language_model(entry)))
                : meant == Meant::container ? fmt::format("'{}.*'", escape(entry))
                                            : "the name of a module of this checkpoint");
  }
}

}  // namespace qb
