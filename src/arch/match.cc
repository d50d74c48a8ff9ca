#include "arch/match.h"

#include <fmt/format.h>

#include <algorithm>

namespace qb {
namespace {

// Matches one [set] at p (behind '['); advances p behind ']'. An unclosed set is a literal '['.
bool match_set(std::string_view pattern, size_t& p, char c, bool& closed) {
  size_t i = p;
  const bool negated = i < pattern.size() && pattern[i] == '!';
  if (negated) ++i;
  bool hit = false, first = true;
  for (; i < pattern.size() && (first || pattern[i] != ']'); first = false) {
    const char lo = pattern[i];
    if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      hit |= lo <= c && c <= pattern[i + 2];
      i += 3;
    } else {
      hit |= lo == c;
      ++i;
    }
  }
  closed = i < pattern.size();
  if (closed) p = i + 1;
  return hit != negated;
}

}  // namespace

bool shell_match(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = pattern.npos, resume = 0;
  while (n < name.size()) {
    bool step = false;
    if (p < pattern.size()) {
      const char c = pattern[p];
      if (c == '*') {
        star = p++;
        resume = n;
        continue;
      }
      if (c == '[') {
        size_t q = p + 1;
        bool closed = false;
        const bool hit = match_set(pattern, q, name[n], closed);
        step = closed ? hit : name[n] == '[';
        if (step) p = closed ? q : p + 1;
      } else if (c == '?' || c == name[n]) {
        step = true;
        ++p;
      }
    }
    if (step) {
      ++n;
    } else if (star != pattern.npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::string_view module_class(arch::Kind kind) {
  switch (kind) {
    case arch::Kind::linear:
      return "Linear";
    case arch::Kind::embedding:
      return "Embedding";
    default:
      return {};
  }
}

namespace {

Result<std::shared_ptr<const Regex>> compiled(std::string_view entry, std::string_view pattern, RegexCompiler compile) {
  if (compile == nullptr) return Error{Errc::invalid_argument, fmt::format("pattern '{}' needs a regex engine and none was given", entry)};
  return compile(pattern);
}

// torch's classes that a linear or an embedding is one of; their common base hits both.
bool is_class(std::string_view text) {
  return text == "Linear" || text == "Embedding" || text == "Module";
}

}  // namespace

NameRule::NameRule(Syntax syntax, std::string text, std::shared_ptr<const Regex> regex) : text_(std::move(text)), syntax_(syntax), regex_(std::move(regex)) {}

Result<NameRule> NameRule::shell(std::string pattern) {
  const bool literal = pattern.find_first_of("*?[") == pattern.npos;
  const bool below = pattern.size() > 2 && pattern.ends_with(".*");
  return NameRule(literal ? Syntax::name : below ? Syntax::below : Syntax::shell, std::move(pattern));
}

Result<NameRule> NameRule::compressed_tensors(std::string pattern, RegexCompiler compile) {
  const Syntax syntax = pattern.starts_with("re:") ? Syntax::regex : is_class(pattern) ? Syntax::class_name : Syntax::name;
  if (syntax != Syntax::regex) return NameRule(syntax, std::move(pattern));
  Result<std::shared_ptr<const Regex>> regex = compiled(pattern, std::string_view(pattern).substr(3), compile);
  if (!regex) return regex.error();
  return NameRule(Syntax::regex, std::move(pattern), std::move(*regex));
}

Result<NameRule> NameRule::signed_regex(std::string entry, RegexCompiler compile) {
  std::string_view pattern = entry;
  if (pattern.starts_with("-:") || pattern.starts_with("+:")) pattern.remove_prefix(2);
  Result<std::shared_ptr<const Regex>> regex = compiled(entry, pattern, compile);
  if (!regex) return regex.error();
  return NameRule(Syntax::regex, std::move(entry), std::move(*regex));
}

NameRule NameRule::transformers(std::string entry, RegexCompiler compile) {
  if (entry.find_first_of("\\^$*+?{}[]|()") == entry.npos) return {Syntax::affix, std::move(entry)};
  Result<std::shared_ptr<const Regex>> regex = compiled(entry, entry, compile);
  if (!regex) return {Syntax::affix_shell, std::move(entry)};
  return {Syntax::affix_regex, std::move(entry), std::move(*regex)};
}

NameRule NameRule::substring(std::string part) {
  return {Syntax::substring, std::move(part)};
}

NameRule::How NameRule::match(std::string_view path, arch::Kind kind) const {
  const auto pattern = [](bool hit) { return hit ? How::pattern : How::no; };
  switch (syntax_) {
    case Syntax::name:
      return path == text_ ? How::exact : How::no;
    case Syntax::class_name: {
      if (path == text_) return How::exact;
      const std::string_view cls = module_class(kind);
      return !cls.empty() && (text_ == cls || text_ == "Module") ? How::class_name : How::no;
    }
    case Syntax::below:
      if (text_.size() == path.size() + 2 && text_.starts_with(path)) return How::pattern;
      [[fallthrough]];
    case Syntax::shell:
      return pattern(shell_match(text_, path));
    case Syntax::regex:
      return pattern(regex_->match_prefix(path));
    case Syntax::substring:
      return pattern(path.find(text_) != path.npos);
    case Syntax::affix:
      return path == text_ ? How::exact : pattern(path.starts_with(text_) || path.ends_with(text_));
    case Syntax::affix_regex:
      return pattern(regex_->match_prefix(path) || path.ends_with(text_));
    case Syntax::affix_shell:
      for (size_t dot = path.size(); dot != path.npos && dot > 0; dot = path.rfind('.', dot - 1))
        if (shell_match(text_, path.substr(0, dot))) return How::pattern;
      return How::no;
  }
  return How::no;
}

RuleList::RuleList(std::vector<NameRule> rules) : rules_(std::move(rules)) {
  for (size_t i = 0; i < rules_.size(); ++i) {
    const NameRule::Lookup lookup = rules_[i].lookup();
    if (lookup == NameRule::Lookup::none)
      others_.push_back(i);
    else
      named_.emplace(rules_[i].text(), i);
    if (lookup == NameRule::Lookup::affix) lengths_.push_back(rules_[i].text().size());
  }
  std::sort(lengths_.begin(), lengths_.end());
  lengths_.erase(std::unique(lengths_.begin(), lengths_.end()), lengths_.end());
}

size_t RuleList::first(std::string_view path, arch::Kind kind) const {
  size_t first = none;
  const auto look = [&](std::string_view name) {
    if (const auto it = named_.find(name); it != named_.end() && it->second < first && rules_[it->second].match(path, kind) != NameRule::How::no)
      first = it->second;
  };
  look(path);
  for (const size_t length : lengths_) {
    if (length >= path.size()) break;
    look(path.substr(0, length));
    look(path.substr(path.size() - length));
  }
  for (const size_t i : others_) {
    if (i > first) break;
    if (rules_[i].match(path, kind) != NameRule::How::no) first = i;
  }
  return first;
}

size_t RuleList::best(std::string_view path, arch::Kind kind) const {
  size_t best = none;
  NameRule::How best_how = NameRule::How::no;
  for (size_t i = 0; i < rules_.size(); ++i) {
    const NameRule::How how = rules_[i].match(path, kind);
    if (how == NameRule::How::no) continue;
    if (best != none && (how > best_how || (how == best_how && rules_[i].text() > rules_[best].text()))) continue;
    best = i;
    best_how = how;
  }
  return best;
}

}  // namespace qb
