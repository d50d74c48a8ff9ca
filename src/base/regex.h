// Regular expressions as an interface, so that the core needs no engine. host/pcre2_regex.cc is the implementation.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace qb {

class Regex {
 public:
  virtual ~Regex() = default;
  // Python's re.match: anchored at the start of `text`, not at its end. A match that exceeds the engine's step limit counts as no match. Thread-safe.
  virtual bool match_prefix(std::string_view text) const = 0;
};

// Compiles a Python-style pattern; an error names the pattern and the offset.
using RegexCompiler = Result<std::shared_ptr<const Regex>> (*)(std::string_view pattern);

}  // namespace qb
