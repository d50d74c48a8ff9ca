// How the producers' lists of module names are matched: exact names, shell patterns, Python regexes, class names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "arch/family.h"
#include "base/regex.h"

namespace qb {

// Python's fnmatch.fnmatchcase: * (crosses dots), ?, [set], [!set]. Linear in practice, no recursion.
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
  // transformers' modules_to_not_convert: a module, a subtree, or the last components of names; at dots only. With * a pattern of a module or of a subtree.
  static NameRule component(std::string name);
  static NameRule substring(std::string part);  // AutoAWQ's modules_to_not_convert: any part of a name

  enum class How : uint8_t { no, exact, pattern, class_name };  // in the order of compressed-tensors' priority
  How match(std::string_view path, arch::Kind kind) const;
  const std::string& text() const { return text_; }
  // Hits only its own name, or also what lies below it and names that end with it: such rules can be looked up.
  enum class Lookup : uint8_t { none, name, dotted };
  Lookup lookup() const { return literal_ ? Lookup::name : component_ && !wild_ ? Lookup::dotted : Lookup::none; }
  bool literal() const { return literal_; }  // no wildcard, no regex: it names one module

 private:
  std::string text_;
  bool shell_ = false, literal_ = false, component_ = false, wild_ = false, substring_ = false;
  std::shared_ptr<const Regex> regex_;
};

}  // namespace qb
