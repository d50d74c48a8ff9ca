// What a tokenizer changes in a text before it looks for words: Unicode forms, SentencePiece's "▁" for a space.
//
// Source of truth: normalizers of the `tokenizers` library. Offsets are not kept: ids are all that is wanted.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/regex.h"
#include "base/result.h"
#include "text/unicode_form.h"

namespace qb::text {

// What replacements may make of a text of so many bytes: a short file must not turn a text into gigabytes.
constexpr size_t most_made_of(size_t bytes) {
  return 64 + 32 * bytes;
}

// "Replace", of normalizers and decoders alike: every match of a string or a regular expression becomes `content`.
class Replacement {
 public:
  Result<void> load(const Json& config, RegexCompiler compile);
  // Puts the new text into `out`; false, and `out` as it was: there is no match. More than `most` bytes are an error.
  Result<bool> apply(std::string_view text, size_t most, std::string& out) const;
  bool keeps_characters() const { return keeps_characters_; }  // puts one character in the place of one

 private:
  Result<bool> find(std::string_view text, size_t from, RegexMatch& match) const;

  std::string literal_;
  std::shared_ptr<const Regex> regex_;  // null: literal_
  std::string content_;
  bool keeps_characters_ = false;
};

class Normalizer {
 public:
  // `config` is the value of "normalizer".
  Result<void> load(const Json& config, RegexCompiler compile);
  // The normalized text: `text` itself, or a view of what was added to `storage`. `text` must be valid UTF-8.
  Result<std::string_view> apply(std::string_view text, std::deque<std::string>& storage) const;
  // What the first character of a text becomes is one character, and nothing else comes before it.
  bool keeps_start() const { return keeps_start_; }

 private:
  struct Step {
    enum class Kind : uint8_t { form, prepend, replace } kind = Kind::form;
    UnicodeForm form = UnicodeForm::nfc;
    std::string prefix;
    Replacement replacement;
  };
  std::vector<Step> steps_;
  bool keeps_start_ = true;
};

}  // namespace qb::text
