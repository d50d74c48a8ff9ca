// Patterns of tokenizer.json, which Oniguruma reads, in the spelling of base/regex.h's engine (Python's `re` on PCRE2).
//
// Goal: a pattern either means the same in both, or is refused by name. Only constructs that are known to agree, or that are rewritten here, pass.
// Sources of truth: Oniguruma's doc/RE with the Ruby syntax, which the `tokenizers` library uses; pcre2pattern(3).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/regex.h"
#include "base/result.h"

namespace qb::text {

Result<std::string> translate_oniguruma(std::string_view pattern);
// Translates and compiles; errors say that they are about tokenizer.json.
Result<std::shared_ptr<const Regex>> compile_oniguruma(std::string_view pattern, RegexCompiler compile);
// A pattern that matches `literal` itself.
std::string escape_pattern(std::string_view literal);

}  // namespace qb::text
