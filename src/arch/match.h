// How the producers' lists of module names are matched: exact names, shell patterns, Python regexes, class names.
//
// Goal: the answers that the producers' own libraries give, so that what a list leaves out here is what its author left out. tests/data/match/ has such answers
// (tools/conformance/match_rules.py asks for them), and says where and why we answer otherwise. Non-goal: what engines make of the same lists (target/).
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "arch/family.h"
#include "base/regex.h"

namespace qb {

// Python's fnmatch.fnmatchcase on ASCII: * (crosses dots), ?, [set], [!set]. Linear in practice, no recursion.
bool shell_match(std::string_view pattern, std::string_view name);

// The class that targets of compressed-tensors name: Linear, Embedding, or nothing.
std::string_view module_class(arch::Kind kind);

// One entry of an exclude, ignore or targets list.
class NameRule {
 public:
  // A regex that does not compile gives an error that names the pattern.
  static Result<NameRule> shell(std::string pattern);                                      // ModelOpt: exact or fnmatch, "X.*" also hits X
  static Result<NameRule> compressed_tensors(std::string pattern, RegexCompiler compile);  // exact, class name, "re:" from the start of the name
  // GPTQModel: a regex from the start of the name, behind "-:", "+:" or nothing.
  static Result<NameRule> signed_regex(std::string entry, RegexCompiler compile);
  // transformers' modules_to_not_convert: a regex from the start of the name (so "layers.1" hits layers.10), or the last characters of it. The dots of an entry
  // that has no other special character are dots; an entry that is no regex is a shell pattern of a name or of what holds it.
  static NameRule transformers(std::string entry, RegexCompiler compile);
  static NameRule substring(
      std::string part);  // AutoAWQ's modules_to_not_convert: any part of a name, which here is the whole one and there begins below its layer

  enum class How : uint8_t { no, exact, pattern, class_name };  // in the order of compressed-tensors' priority
  How match(std::string_view path, arch::Kind kind) const;
  const std::string& text() const { return text_; }
  // Hits only its own name, or names that begin or end with it: such rules can be looked up.
  enum class Lookup : uint8_t { none, name, affix };
  Lookup lookup() const { return literal() ? Lookup::name : syntax_ == Syntax::affix ? Lookup::affix : Lookup::none; }
  bool literal() const { return syntax_ == Syntax::name; }  // no wildcard, no regex, no class: it names one module

 private:
  enum class Syntax : uint8_t { name, class_name, shell, below, regex, affix, affix_regex, affix_shell, substring };
  NameRule(Syntax syntax, std::string text, std::shared_ptr<const Regex> regex = nullptr);

  std::string text_;
  Syntax syntax_ = Syntax::name;
  std::shared_ptr<const Regex> regex_;
};

// The entries of one list, in its order. Thread-safe once made.
class RuleList {
 public:
  RuleList() = default;
  explicit RuleList(std::vector<NameRule> rules);
  RuleList(RuleList&&) = default;  // the look-up views the rules' texts, which stay where they are
  RuleList& operator=(RuleList&&) = default;

  size_t size() const { return rules_.size(); }
  const NameRule& operator[](size_t i) const { return rules_[i]; }
  auto begin() const { return rules_.begin(); }
  auto end() const { return rules_.end(); }

  static constexpr size_t none = static_cast<size_t>(-1);
  // The first entry that hits. Lists name every router and norm of a thousand layers; most of them are found by name.
  size_t first(std::string_view path, arch::Kind kind) const;
  // The entry that compressed-tensors' targets give a module to: an exact name, else a regex, else a class; each in lexicographic order, of equal ones the
  // last.
  size_t best(std::string_view path, arch::Kind kind) const;

 private:
  std::vector<NameRule> rules_;
  std::unordered_map<std::string_view, size_t> named_;  // those that can be looked up, by text: the first of each
  std::vector<size_t> lengths_;                         // of those whose names begin or end with them
  std::vector<size_t> others_;                          // the rest, in order
};

}  // namespace qb
