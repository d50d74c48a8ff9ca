#include "text/normalizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/diagnostics.h"
#include "base/json.h"
#include "base/utf8.h"
#include "text/oniguruma.h"

namespace qb::text {
namespace {

constexpr size_t most_steps = 64;

constexpr std::array<std::pair<std::string_view, UnicodeForm>, 4> forms = {
    {{"NFC", UnicodeForm::nfc}, {"NFD", UnicodeForm::nfd}, {"NFKC", UnicodeForm::nfkc}, {"NFKD", UnicodeForm::nfkd}}};

Error refuse(std::string what) {
  return {Errc::invalid_argument, "tokenizer.json: " + std::move(what)};
}

}  // namespace

Result<void> Replacement::load(const Json& config, RegexCompiler compile) {
  const Json* pattern = qb::find(config, "pattern");
  const Json* content = qb::find(config, "content");
  if (pattern == nullptr || !pattern->is_object() || pattern->size() != 1 || content == nullptr || !content->is_string()) {
    return refuse("a Replace must have a pattern and a content");
  }
  content_ = *content->get_ptr<const std::string*>();
  if (const Json* literal = qb::find(*pattern, "String"); literal != nullptr && literal->is_string() && !literal->get_ptr<const std::string*>()->empty()) {
    literal_ = *literal->get_ptr<const std::string*>();
    keeps_characters_ = decode_utf8(literal_).bytes == literal_.size() && !content_.empty() && decode_utf8(content_).bytes == content_.size();
  } else if (const Json* regex = qb::find(*pattern, "Regex"); regex != nullptr && regex->is_string()) {
    QB_ASSIGN(regex_, compile_oniguruma(*regex->get_ptr<const std::string*>(), compile));
  } else {
    return refuse("the pattern of a Replace is neither a Regex nor a String");
  }
  return {};
}

Result<bool> Replacement::find(std::string_view text, size_t from, RegexMatch& match) const {
  if (regex_ == nullptr) {
    const size_t at = text.find(literal_, from);
    if (at == std::string_view::npos) return false;
    match = {at, at + literal_.size()};
    return true;
  }
  if (from >= text.size()) return false;
  QB_ASSIGN(const std::optional<RegexMatch> m, regex_->find(text, from));
  if (!m) return false;
  if (m->begin == m->end) return refuse(fmt::format("the pattern of a Replace matches nothing at byte {} of a text, which is not supported", m->begin));
  match = *m;
  return true;
}

Result<bool> Replacement::apply(std::string_view text, size_t most, std::string& out) const {
  RegexMatch match;
  QB_ASSIGN(bool found, find(text, 0, match));
  if (!found) return false;
  std::string made;
  size_t done = 0;
  while (found) {
    made.append(text.substr(done, match.begin - done)).append(content_);
    if (made.size() > most) return refuse(fmt::format("a Replace makes more than {} bytes of a text of {}, which is not supported", most, text.size()));
    done = match.end;
    QB_ASSIGN(found, find(text, done, match));
  }
  made.append(text.substr(done));
  out = std::move(made);
  return true;
}

Result<void> Normalizer::load(const Json& config, RegexCompiler compile) {
  const std::string_view type = config.is_object() ? string_at(config, "type") : std::string_view();
  if (type == "Sequence") {
    const Json* parts = find(config, "normalizers");
    if (parts == nullptr || !parts->is_array()) return refuse("the normalizer Sequence has no list 'normalizers'");
    for (const Json& part : *parts) QB_TRY(load(part, compile));
    return {};
  }
  if (steps_.size() >= most_steps) return refuse(fmt::format("more than {} normalizers", most_steps));
  Step step;
  if (const auto form = std::find_if(forms.begin(), forms.end(), [&](const auto& f) { return f.first == type; }); form != forms.end()) {
    step.form = form->second;
    keeps_start_ = keeps_start_ && step.form == UnicodeForm::nfc;
  } else if (type == "Prepend") {
    const Json* prefix = find(config, "prepend");
    if (prefix == nullptr || !prefix->is_string()) return refuse("the normalizer Prepend has no 'prepend'");
    step.kind = Step::Kind::prepend;
    step.prefix = *prefix->get_ptr<const std::string*>();
    keeps_start_ = false;
  } else if (type == "Replace") {
    step.kind = Step::Kind::replace;
    QB_TRY(step.replacement.load(config, compile));
    keeps_start_ = keeps_start_ && step.replacement.keeps_characters();
  } else {
    return refuse(fmt::format("the normalizer '{}' is not supported: NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence are", escape(type)));
  }
  steps_.push_back(std::move(step));
  return {};
}

Result<std::string_view> Normalizer::apply(std::string_view text, std::deque<std::string>& storage) const {
  const std::string_view given = text;
  const size_t most = most_made_of(text.size());
  std::string made;
  bool changed = false;
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Step::Kind::form: {
        if (is_plainly(text, step.form)) continue;
        QB_ASSIGN(made, to_form(text, step.form));
        break;
      }
      case Step::Kind::prepend:
        if (text.empty() || step.prefix.empty()) continue;
        if (step.prefix.size() > most) return refuse(fmt::format("a Prepend of {} bytes is not supported", step.prefix.size()));
        made = step.prefix + std::string(text);
        break;
      case Step::Kind::replace: {
        QB_ASSIGN(const bool replaced, step.replacement.apply(text, most, made));
        if (!replaced) continue;
        break;
      }
    }
    changed = true;
    text = made;
  }
  return changed ? std::string_view(storage.emplace_back(std::move(made))) : given;
}

}  // namespace qb::text
