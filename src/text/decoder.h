// Tokens back to bytes.
//
// Source of truth: decoders of the `tokenizers` library, for ByteLevel, for Metaspace, and for what SentencePiece's tokenizers have in this order: Replace,
// ByteFallback, Fuse, Strip. Non-goal: the library's U+FFFD for bytes that are no UTF-8; these bytes are handed out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/regex.h"
#include "base/result.h"
#include "text/normalizer.h"

namespace qb::text {

// How far a text has come: what stands at its start is treated apart.
struct DecodeState {
  bool begun = false;   // there was a token
  size_t stripped = 0;  // characters taken off the start
  bool inside = false;  // there was a byte that is not taken off
};

class Decoder {
 public:
  // `config` is the value of "decoder".
  Result<void> load(const Json& config, RegexCompiler compile);
  bool byte_level() const { return kind_ == Kind::byte_level; }
  // Appends what the next token, spelled `token` in the file, adds to a text.
  Result<void> append(std::string_view token, DecodeState& state, std::string& out) const;

 private:
  enum class Kind : uint8_t { none, byte_level, metaspace, chain };
  Result<void> add(const Json& config, RegexCompiler compile);
  Result<void> add_strip(const Json& config);

  Kind kind_ = Kind::none;
  std::string space_;         // Metaspace's replacement
  bool drops_first_ = false;  // Metaspace takes it out of the first token
  std::vector<Replacement> replacements_;
  bool byte_fallback_ = false, fused_ = false;
  char strip_ = ' ';
  size_t strip_most_ = 0;
};

}  // namespace qb::text
