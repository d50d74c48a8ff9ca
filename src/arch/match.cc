#include "arch/match.h"

#include <fmt/format.h>

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

Result<NameRule> NameRule::shell(std::string pattern) {
  NameRule r;
  r.shell_ = true;
  r.literal_ = pattern.find_first_of("*?[") == pattern.npos;
  r.text_ = std::move(pattern);
  return r;
}

Result<NameRule> NameRule::compressed_tensors(std::string pattern, RegexCompiler compile) {
  NameRule r;
  r.text_ = std::move(pattern);
  if (r.text_.starts_with("re:")) {
    if (compile == nullptr) return Error{Errc::invalid_argument, fmt::format("pattern '{}' needs a regex engine and none was given", r.text_)};
    QB_ASSIGN(r.regex_, compile(std::string_view(r.text_).substr(3)));
  } else {
    r.literal_ = r.text_ != "Linear" && r.text_ != "Embedding";
  }
  return r;
}

Result<NameRule> NameRule::signed_regex(std::string entry, RegexCompiler compile) {
  NameRule r;
  r.text_ = std::move(entry);
  if (compile == nullptr) return Error{Errc::invalid_argument, fmt::format("pattern '{}' needs a regex engine and none was given", r.text_)};
  std::string_view pattern = r.text_;
  if (pattern.starts_with("-:") || pattern.starts_with("+:")) pattern.remove_prefix(2);
  QB_ASSIGN(r.regex_, compile(pattern));
  return r;
}

NameRule NameRule::component(std::string name) {
  NameRule r;
  r.component_ = true;
  r.wild_ = name.find('*') != name.npos;
  r.text_ = std::move(name);
  return r;
}

NameRule NameRule::substring(std::string part) {
  NameRule r;
  r.substring_ = true;
  r.text_ = std::move(part);
  return r;
}

NameRule::How NameRule::match(std::string_view path, arch::Kind kind) const {
  if (path == text_) return How::exact;
  if (substring_) return !text_.empty() && path.find(text_) != path.npos ? How::pattern : How::no;
  if (component_) {
    if (wild_)  // the name, or what holds it
      for (size_t dot = path.size(); dot != path.npos && dot > 0; dot = path.rfind('.', dot - 1))
        if (shell_match(text_, path.substr(0, dot))) return How::pattern;
    const bool longer = path.size() > text_.size() && !text_.empty();
    const bool subtree = longer && path.starts_with(text_) && path[text_.size()] == '.';
    return subtree || (longer && path.ends_with(text_) && path[path.size() - text_.size() - 1] == '.') ? How::pattern : How::no;
  }
  if (shell_) {
    if (text_.size() == path.size() + 2 && text_.starts_with(path) && text_.ends_with(".*")) return How::pattern;
    return !literal_ && shell_match(text_, path) ? How::pattern : How::no;
  }
  if (regex_) return regex_->match_prefix(path) ? How::pattern : How::no;
  const std::string_view cls = module_class(kind);
  return !cls.empty() && text_ == cls ? How::class_name : How::no;
}

}  // namespace qb
