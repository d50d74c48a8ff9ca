#include <algorithm>

#include "base/utf8.h"
#include "text/tokenizer.h"

namespace qb::text {
namespace {

// True when more bytes could still make `text` a valid sequence; it holds one to three bytes.
bool may_continue(std::string_view text) {
  // The first byte that follows decides: each lead takes at least one of these.
  for (const char next : {'\x80', '\x90', '\xBF'}) {
    std::string tried(text);
    tried += next;
    tried.resize(std::max<size_t>(tried.size(), 4), '\x80');
    if (decode_utf8(tried).bytes > text.size()) return true;
  }
  return false;
}

constexpr std::string_view replacement = "\xEF\xBF\xBD";

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  size_t i = 0;
  while (i < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(i);
    const Utf8Char c = decode_utf8(rest);
    if (c.bytes > 0) {
      out += rest.substr(0, c.bytes);
      i += c.bytes;
      continue;
    }
    if (rest.size() < 4 && may_continue(rest)) break;
    // The longest start of a sequence is one mistake, as Unicode recommends.
    size_t bad = std::min<size_t>(rest.size(), 3);
    while (bad > 1 && !may_continue(rest.substr(0, bad))) --bad;
    out += replacement;
    i += bad;
  }
  pending_.erase(0, i);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out = pending_.empty() ? std::string() : std::string(replacement);
  pending_.clear();
  return out;
}

}  // namespace qb::text
