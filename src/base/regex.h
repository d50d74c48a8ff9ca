// Regular expressions as an interface, so that the core needs no engine. host/pcre2_regex.cc is the implementation.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace qb {

// Bytes [begin, end) of the text that was searched.
struct RegexMatch {
  size_t begin = 0, end = 0;
};

class Regex {
 public:
  virtual ~Regex() = default;
  // Python's re.match: anchored at the start of `text`, not at its end. A match that exceeds the engine's step limit counts as no match. Thread-safe.
  virtual bool match_prefix(std::string_view text) const = 0;
  // The leftmost match that starts at or after the byte `from`; nullopt: there is none. Look-behind sees what stands before `from`. Precondition: `text` is
  // valid UTF-8 and `from` starts a character or is the end. Exceeding the engine's limits is an error. Thread-safe. An engine need not have it.
  virtual Result<std::optional<RegexMatch>> find(std::string_view /*text*/, size_t /*from*/) const {
    return Error{Errc::invalid_argument, "this regular expression engine matches at the start of a text only"};
  }
};

// Compiles a Python-style pattern; an error names the pattern and the offset.
using RegexCompiler = Result<std::shared_ptr<const Regex>> (*)(std::string_view pattern);

}  // namespace qb
