// Text to token ids and back, from a Hugging Face tokenizer.json. Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM), and SentencePiece's BPE (Llama 2, Mistral,
// Phi-3, Gemma).
//
// Source of truth: what the `tokenizers` library does with the same file. Supported components are listed in docs/tokenizers.md; any other is an error that
// names it, never a wrong token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/regex.h"
#include "base/result.h"
#include "text/decoder.h"

namespace qb::text {

using TokenId = int32_t;

class Tokenizer {
 public:
  // `json` is tokenizer.json. Errors name the component and what is supported.
  static Result<Tokenizer> load(std::string_view json, RegexCompiler regex);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Added tokens (special ones too) in the text become their ids. `add_special` applies the post-processor (bos, eos). Invalid UTF-8 is an error.
  Result<std::vector<TokenId>> encode(std::string_view text, bool add_special) const;
  // The bytes of the tokens; special ones are left out when `skip_special`. Unknown ids are an error that names the id.
  Result<std::string> decode(std::span<const TokenId> ids, bool skip_special) const;
  // Appends the bytes that the next token adds to a text; they may end inside a character. `state` is new for each text.
  Result<void> decode_next(TokenId id, DecodeState& state, std::string& out) const;
  bool is_special(TokenId id) const;
  // Id of an added or vocabulary token by its content; -1 when there is none.
  TokenId id_of(std::string_view token) const;
  int64_t size() const;  // one past the largest id

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

// Hands out only whole UTF-8 characters of a growing byte string; the rest waits.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  std::string finish();  // what is left, invalid bytes replaced by U+FFFD

 private:
  std::string pending_;
};

// The text of tokens that arrive one by one, special ones left out: what decode() makes of all of them, in whole characters as soon as they are whole.
class TokenStream {
 public:
  // `tokenizer` must outlive the stream.
  explicit TokenStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  Result<std::string> push(TokenId id);
  std::string finish() { return characters_.finish(); }

 private:
  const Tokenizer& tokenizer_;
  DecodeState state_;
  Utf8Stream characters_;
};

}  // namespace qb::text
