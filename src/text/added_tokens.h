// Tokens that are found in the text before it is split into words: special ones and others added to a vocabulary.
//
// Source of truth: AddedVocabulary of the `tokenizers` library: leftmost-longest matches, single_word, lstrip and rstrip applied to each match.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/regex.h"
#include "base/result.h"

namespace qb::text {

struct AddedToken {
  std::string content;
  std::string decoded;  // the content, normalized where that is looked for
  int32_t id = 0;
  bool special = false, normalized = false, single_word = false, lstrip = false, rstrip = false;
};

// A part of a text: an added token, or (id < 0) what stands between.
struct Part {
  std::string_view text;
  int32_t id = -1;
};

class AddedTokenFinder {
 public:
  // `pattern` is what to look for: the token's content, normalized where the token says so. False: it is that of a token before.
  bool add(std::string_view pattern, const AddedToken& token);
  // Splits `text`; `word_character` matches one character of a word at the start of a text.
  void split(std::string_view text, const Regex& word_character, std::vector<Part>& out) const;
  bool empty() const { return tokens_.empty(); }

 private:
  struct Match {
    size_t begin = 0, end = 0;
    const AddedToken* token = nullptr;
  };
  bool next(std::string_view text, size_t from, Match& out) const;

  // A trie over bytes: (node, byte) -> node. Node 0 is the root.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::vector<int32_t> ends_ = {-1};  // by node: index into tokens_
  std::array<bool, 256> starts_{};
  std::vector<AddedToken> tokens_;
};

}  // namespace qb::text
