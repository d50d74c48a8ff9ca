// Cuts a text into the words that byte-pair encoding works on.
//
// Source of truth: pre_tokenizers of the `tokenizers` library. ByteLevel must stand last: what follows it would see its alphabet instead of the text. A
// tokenizer without a pre-tokenizer has one word: the whole text.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/regex.h"
#include "base/result.h"
#include "text/metaspace.h"

namespace qb::text {

class PreTokenizer {
 public:
  // `config` is the value of "pre_tokenizer".
  Result<void> load(const Json& config, RegexCompiler compile);
  // Words are bytes in ByteLevel's alphabet, else characters.
  bool byte_level() const { return byte_level_; }
  // What is prepended depends on where a word was in the text that the user gave.
  bool wants_start() const { return wants_start_; }
  // Replaces `words`, which is scratch space too. Views point into `text` or `storage`. `at_start`: `text` is the beginning of what the user gave.
  Result<void> split(std::string_view text, bool at_start, std::vector<std::string_view>& words, std::deque<std::string>& storage) const;

 private:
  enum class Behavior : uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  struct Step {
    std::shared_ptr<const Regex> pattern;  // null: no splitting
    Behavior behavior = Behavior::isolated;
    bool invert = false;
    bool prefix_space = false;  // before splitting
    std::shared_ptr<const Metaspace> metaspace;
  };
  Result<void> add(const Json& config, RegexCompiler compile);
  Result<void> add_split(const Json& config, RegexCompiler compile);
  Result<void> add_metaspace(const Json& config, RegexCompiler compile);
  static void mark_spaces(const Metaspace& settings, const char* start, std::vector<std::string_view>& words, std::deque<std::string>& storage);
  static Result<void> apply(const Step& step, std::string_view text, std::vector<std::string_view>& out);

  std::vector<Step> steps_;
  bool byte_level_ = false, metaspace_ = false, wants_start_ = false;
};

}  // namespace qb::text
