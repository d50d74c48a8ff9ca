// The settings of "Metaspace", which is a pre-tokenizer and a decoder. Source of truth: the `tokenizers` library, which also reads its older spelling.
#pragma once

#include <string>

#include "base/json_fwd.h"
#include "base/result.h"

namespace qb::text {

struct Metaspace {
  enum class Prepend : uint8_t { always, first, never };
  std::string replacement;  // one character
  Prepend prepend = Prepend::always;
  bool split = true;
};

Result<Metaspace> read_metaspace(const Json& config);

}  // namespace qb::text
