#include "text/metaspace.h"

#include <fmt/format.h>

#include "base/diagnostics.h"
#include "base/json.h"
#include "base/utf8.h"

namespace qb::text {

Result<Metaspace> read_metaspace(const Json& config) {
  const auto refuse = [](std::string what) { return Error{Errc::invalid_argument, "tokenizer.json: Metaspace: " + std::move(what)}; };
  Metaspace out;
  out.replacement = string_at(config, "replacement");
  const Utf8Char c = decode_utf8(out.replacement);
  if (c.bytes == 0 || c.bytes != out.replacement.size()) return refuse(fmt::format("the replacement is '{}', not one character", escape(out.replacement)));
  const std::string_view scheme = string_at(config, "prepend_scheme", "always");
  if (scheme == "first")
    out.prepend = Metaspace::Prepend::first;
  else if (scheme == "never")
    out.prepend = Metaspace::Prepend::never;
  else if (scheme != "always")
    return refuse(fmt::format("the prepend_scheme '{}' is not supported: always, first and never are", escape(scheme)));
  // Older files say this instead; the library does not accept both where they contradict.
  if (!bool_at(config, "add_prefix_space", true) && out.prepend != Metaspace::Prepend::never)
    return refuse("add_prefix_space is false, but the prepend_scheme is not 'never'");
  out.split = bool_at(config, "split", true);
  return out;
}

}  // namespace qb::text
