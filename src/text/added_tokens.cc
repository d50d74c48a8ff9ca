#include "text/added_tokens.h"

#include <algorithm>

#include "base/utf8.h"

namespace qb::text {
namespace {

// White_Space, which is what \s means in the library's own expressions.
bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

// Where the last character of `text` starts. Precondition: valid UTF-8, not empty.
size_t last_character(std::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0U) == 0x80U) --i;
  return i;
}

size_t spaces_at_start(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const Utf8Char c = decode_utf8(text.substr(i));
    if (c.bytes == 0 || !is_space(c.point)) break;
    i += c.bytes;
  }
  return i;
}

// Where the spaces at the end of `text` begin.
size_t spaces_at_end(std::string_view text) {
  while (!text.empty()) {
    const size_t at = last_character(text);
    if (!is_space(decode_utf8(text.substr(at)).point)) break;
    text = text.substr(0, at);
  }
  return text.size();
}

}  // namespace

bool AddedTokenFinder::add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return true;
  uint32_t node = 0;
  starts_[static_cast<unsigned char>(pattern.front())] = true;
  for (const char c : pattern) {
    const auto [at, made] = edges_.try_emplace((static_cast<uint64_t>(node) << 8) | static_cast<unsigned char>(c), static_cast<uint32_t>(ends_.size()));
    if (made) ends_.push_back(-1);
    node = at->second;
  }
  if (ends_[node] >= 0) return false;
  ends_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  return true;
}

bool AddedTokenFinder::next(std::string_view text, size_t from, Match& out) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    uint32_t node = 0;
    int32_t found = -1;
    size_t end = begin;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto at = edges_.find((static_cast<uint64_t>(node) << 8) | static_cast<unsigned char>(text[i]));
      if (at == edges_.end()) break;
      node = at->second;
      if (ends_[node] >= 0) found = ends_[node], end = i + 1;
    }
    if (found < 0) continue;
    out = {begin, end, &tokens_[static_cast<size_t>(found)]};
    return true;
  }
  return false;
}

void AddedTokenFinder::split(std::string_view text, const Regex& word_character, std::vector<Part>& out) const {
  if (text.empty()) return;
  size_t done = 0;
  Match m;
  for (size_t from = 0; !tokens_.empty() && next(text, from, m); from = m.end) {
    size_t begin = m.begin, end = m.end;
    if (m.token->single_word) {
      const bool word_before =
          begin > 0 && word_character.match_prefix(text.substr(last_character(text.substr(0, begin)), begin - last_character(text.substr(0, begin))));
      const std::string_view after = text.substr(end);
      const bool word_after = !after.empty() && word_character.match_prefix(after.substr(0, decode_utf8(after).bytes));
      if (word_before || word_after) continue;
    }
    if (m.token->lstrip) begin = std::max(spaces_at_end(text.substr(0, begin)), done);
    if (m.token->rstrip) end += spaces_at_start(text.substr(end));
    // A match within the spaces that the one before it took: nothing is left of it where it takes those before it too.
    if (begin >= end) continue;
    if (done < begin) out.push_back({text.substr(done, begin - done)});
    out.push_back({text.substr(begin, end - begin), m.token->id});
    done = end;
  }
  if (done < text.size()) out.push_back({text.substr(done)});
}

}  // namespace qb::text
