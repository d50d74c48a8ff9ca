#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/diagnostics.h"
#include "base/json.h"
#include "text/oniguruma.h"

namespace qb::text {
namespace {

constexpr std::string_view gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr size_t most_steps = 64;

Error refuse(std::string what) {
  return {Errc::invalid_argument, "tokenizer.json: " + std::move(what)};
}

}  // namespace

Result<void> PreTokenizer::load(const Json& config, RegexCompiler compile) {
  return add(config, compile);
}

Result<void> PreTokenizer::add(const Json& config, RegexCompiler compile) {
  const std::string_view type = config.is_object() ? string_at(config, "type") : std::string_view();
  if (type == "Sequence") {
    const Json* parts = find(config, "pretokenizers");
    if (parts == nullptr || !parts->is_array()) return refuse("the pre-tokenizer Sequence has no list 'pretokenizers'");
    for (const Json& part : *parts) QB_TRY(add(part, compile));
    return {};
  }
  if (byte_level_) return refuse(fmt::format("the pre-tokenizer '{}' after ByteLevel is not supported", escape(type)));
  if (steps_.size() >= most_steps) return refuse(fmt::format("more than {} pre-tokenizers", most_steps));
  Step step;
  if (type == "ByteLevel") {
    byte_level_ = true;
    step.prefix_space = bool_at(config, "add_prefix_space", true);
    if (bool_at(config, "use_regex", true)) {
      QB_ASSIGN(step.pattern, compile_oniguruma(gpt2_pattern, compile));
    }
  } else if (type == "Digits") {
    step.behavior = bool_at(config, "individual_digits", false) ? Behavior::isolated : Behavior::contiguous;
    QB_ASSIGN(step.pattern, compile_oniguruma("\\p{N}", compile));
  } else if (type == "WhitespaceSplit") {
    step.behavior = Behavior::removed;
    QB_ASSIGN(step.pattern, compile_oniguruma("\\s", compile));
  } else if (type == "Split") {
    return add_split(config, compile);
  } else if (type == "Metaspace") {
    return add_metaspace(config, compile);
  } else {
    return refuse(fmt::format("the pre-tokenizer '{}' is not supported: ByteLevel, Metaspace, Split, Digits, WhitespaceSplit and Sequence are", escape(type)));
  }
  steps_.push_back(std::move(step));
  return {};
}

Result<void> PreTokenizer::add_split(const Json& config, RegexCompiler compile) {
  Step step;
  const Json* pattern = find(config, "pattern");
  if (pattern == nullptr || !pattern->is_object() || pattern->size() != 1) return refuse("the pre-tokenizer Split has no pattern");
  if (const Json* regex = find(*pattern, "Regex"); regex != nullptr && regex->is_string()) {
    QB_ASSIGN(step.pattern, compile_oniguruma(*regex->get_ptr<const std::string*>(), compile));
  } else if (const Json* literal = find(*pattern, "String"); literal != nullptr && literal->is_string() && !literal->get_ptr<const std::string*>()->empty()) {
    QB_ASSIGN(step.pattern, compile(escape_pattern(*literal->get_ptr<const std::string*>())));
  } else {
    return refuse("the pattern of the pre-tokenizer Split is neither a Regex nor a String");
  }
  const std::string_view behavior = string_at(config, "behavior");
  if (behavior == "Removed")
    step.behavior = Behavior::removed;
  else if (behavior == "Isolated")
    step.behavior = Behavior::isolated;
  else if (behavior == "MergedWithPrevious")
    step.behavior = Behavior::merged_with_previous;
  else if (behavior == "MergedWithNext")
    step.behavior = Behavior::merged_with_next;
  else if (behavior == "Contiguous")
    step.behavior = Behavior::contiguous;
  else
    return refuse(fmt::format("the behavior '{}' of the pre-tokenizer Split is not supported", escape(behavior)));
  step.invert = bool_at(config, "invert", false);
  steps_.push_back(std::move(step));
  return {};
}

Result<void> PreTokenizer::add_metaspace(const Json& config, RegexCompiler compile) {
  if (metaspace_) return refuse("more than one Metaspace among the pre-tokenizers is not supported");
  metaspace_ = true;
  QB_ASSIGN(Metaspace settings, read_metaspace(config));
  wants_start_ = settings.prepend == Metaspace::Prepend::first;
  Step step;
  if (settings.split) {
    QB_ASSIGN(step.pattern, compile(escape_pattern(settings.replacement)));
    step.behavior = Behavior::merged_with_next;
  }
  step.metaspace = std::make_shared<const Metaspace>(std::move(settings));
  steps_.push_back(std::move(step));
  return {};
}

// `start`: where the user's text begins, null where it is not among the words.
void PreTokenizer::mark_spaces(const Metaspace& settings, const char* start, std::vector<std::string_view>& words, std::deque<std::string>& storage) {
  for (std::string_view& word : words) {
    const bool starts = word.starts_with(' ') || word.starts_with(settings.replacement);
    const bool here = settings.prepend == Metaspace::Prepend::always || (settings.prepend == Metaspace::Prepend::first && word.data() == start);
    const bool prepend = here && !starts;
    if (!prepend && word.find(' ') == std::string_view::npos) continue;
    std::string made = prepend ? settings.replacement : std::string();
    size_t done = 0;
    for (size_t at; (at = word.find(' ', done)) != std::string_view::npos; done = at + 1) made.append(word.substr(done, at - done)) += settings.replacement;
    made += word.substr(done);
    word = storage.emplace_back(std::move(made));
  }
}

Result<void> PreTokenizer::apply(const Step& step, std::string_view text, std::vector<std::string_view>& out) {
  struct Piece {
    std::string_view text;
    bool match;
  };
  // The common case needs no list of pieces.
  const bool direct = step.behavior == Behavior::isolated;
  std::vector<Piece> pieces;
  const auto put = [&](size_t begin, size_t end, bool match) {
    if (direct)
      out.push_back(text.substr(begin, end - begin));
    else
      pieces.push_back({text.substr(begin, end - begin), match != step.invert});
  };
  size_t done = 0;
  while (done < text.size()) {
    QB_ASSIGN(const std::optional<RegexMatch> m, step.pattern->find(text, done));
    if (!m) break;
    if (m->end == m->begin) {
      return Error{Errc::invalid_argument,
                   fmt::format("a pattern of the pre-tokenizer matches nothing at byte {} of a text, which is not supported", m->begin)};
    }
    if (done < m->begin) put(done, m->begin, false);
    put(m->begin, m->end, true);
    done = m->end;
  }
  if (done < text.size()) put(done, text.size(), false);
  if (direct) return {};

  const auto joined = [](std::string_view a, std::string_view b) { return std::string_view(a.data(), a.size() + b.size()); };
  const size_t first = out.size();
  bool last_match = false;
  switch (step.behavior) {
    case Behavior::isolated:
      break;
    case Behavior::removed:
      for (const Piece& p : pieces) {
        if (!p.match) out.push_back(p.text);
      }
      break;
    case Behavior::contiguous:
      for (const Piece& p : pieces) {
        if (out.size() > first && p.match == last_match)
          out.back() = joined(out.back(), p.text);
        else
          out.push_back(p.text);
        last_match = p.match;
      }
      break;
    case Behavior::merged_with_previous:
      for (const Piece& p : pieces) {
        if (p.match && !last_match && out.size() > first)
          out.back() = joined(out.back(), p.text);
        else
          out.push_back(p.text);
        last_match = p.match;
      }
      break;
    case Behavior::merged_with_next:
      for (auto p = pieces.rbegin(); p != pieces.rend(); ++p) {
        if (p->match && !last_match && out.size() > first)
          out.back() = joined(p->text, out.back());
        else
          out.push_back(p->text);
        last_match = p->match;
      }
      std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
      break;
  }
  return {};
}

Result<void> PreTokenizer::split(std::string_view text, bool at_start, std::vector<std::string_view>& words, std::deque<std::string>& storage) const {
  words.clear();
  if (text.empty()) return {};
  words.push_back(text);
  std::vector<std::string_view> next;
  for (const Step& step : steps_) {
    if (step.prefix_space) {
      for (std::string_view& word : words) {
        if (!word.starts_with(' ')) word = storage.emplace_back(" " + std::string(word));
      }
    }
    if (step.metaspace != nullptr) mark_spaces(*step.metaspace, at_start ? text.data() : nullptr, words, storage);
    if (step.pattern == nullptr) continue;
    next.clear();
    for (const std::string_view word : words) QB_TRY(apply(step, word, next));
    words.swap(next);
  }
  return {};
}

}  // namespace qb::text
