#include "text/decoder.h"

#include <fmt/format.h>

#include "base/diagnostics.h"
#include "base/json.h"
#include "text/bpe.h"
#include "text/metaspace.h"

namespace qb::text {
namespace {

constexpr size_t most_steps = 64;

Error refuse(std::string what) {
  return {Errc::invalid_argument, "tokenizer.json: " + std::move(what)};
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte that "<0x41>" stands for; -1: `token` is no such token. The library's parser takes a plus sign for the first digit.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = token[3] == '+' ? 0 : hex_digit(token[3]), low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

Result<void> Decoder::load(const Json& config, RegexCompiler compile) {
  QB_TRY(add(config, compile));
  return kind_ == Kind::none ? Result<void>(refuse("the decoder Sequence is empty")) : Result<void>();
}

Result<void> Decoder::add(const Json& config, RegexCompiler compile) {
  const std::string_view type = config.is_object() ? string_at(config, "type") : std::string_view();
  if (type == "Sequence") {
    const Json* parts = find(config, "decoders");
    if (parts == nullptr || !parts->is_array()) return refuse("the decoder Sequence has no list 'decoders'");
    for (const Json& part : *parts) QB_TRY(add(part, compile));
    return {};
  }
  if (type == "ByteLevel" || type == "Metaspace") {
    if (kind_ != Kind::none) return refuse(fmt::format("the decoder {} together with others is not supported", type));
    kind_ = type == "ByteLevel" ? Kind::byte_level : Kind::metaspace;
    if (kind_ == Kind::byte_level) return {};
    QB_ASSIGN(const Metaspace settings, read_metaspace(config));
    space_ = settings.replacement;
    drops_first_ = settings.prepend != Metaspace::Prepend::never;
    return {};
  }
  if (kind_ != Kind::none && kind_ != Kind::chain) return refuse(fmt::format("the decoder '{}' after ByteLevel or Metaspace is not supported", escape(type)));
  kind_ = Kind::chain;
  if (type == "Replace") {
    if (byte_fallback_ || fused_) return refuse("the decoder Replace after ByteFallback or Fuse is not supported");
    if (replacements_.size() >= most_steps) return refuse(fmt::format("more than {} decoders", most_steps));
    return replacements_.emplace_back().load(config, compile);
  }
  if (type == "ByteFallback") {
    if (byte_fallback_ || fused_) return refuse("the decoder ByteFallback after another or after Fuse is not supported");
    byte_fallback_ = true;
    return {};
  }
  if (type == "Fuse") {
    fused_ = true;
    return {};
  }
  if (type == "Strip") return add_strip(config);
  return refuse(fmt::format("the decoder '{}' is not supported: ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip and Sequence are", escape(type)));
}

Result<void> Decoder::add_strip(const Json& config) {
  const std::string_view content = string_at(config, "content");
  const Json* start = find(config, "start");
  const Json* stop = find(config, "stop");
  if (content.size() != 1 || static_cast<unsigned char>(content[0]) >= 0x80) return refuse("the decoder Strip is supported for one ASCII character");
  if (start == nullptr || !start->is_number_unsigned() || stop == nullptr || !stop->is_number_unsigned()) {
    return refuse("the decoder Strip has no 'start' and 'stop'");
  }
  if (stop->get<uint64_t>() != 0) return refuse("the decoder Strip at the end of a text is not supported");
  // Without Fuse it would cut every token.
  if (!fused_ || strip_most_ != 0) return refuse("the decoder Strip is supported once, after Fuse");
  strip_ = content[0];
  strip_most_ = start->get<uint64_t>();
  return {};
}

Result<void> Decoder::append(std::string_view token, DecodeState& state, std::string& out) const {
  const bool first = !state.begun;
  state.begun = true;
  std::string piece;
  if (kind_ == Kind::byte_level) {
    from_byte_alphabet(token, piece);
    out += piece;
    return {};
  }
  if (kind_ == Kind::metaspace) {
    size_t done = 0;
    for (size_t at; (at = token.find(space_, done)) != std::string_view::npos; done = at + space_.size()) {
      out += token.substr(done, at - done);
      if (!(first && drops_first_)) out += ' ';
    }
    out += token.substr(done);
    return {};
  }
  piece = token;
  const size_t most = most_made_of(token.size());
  for (const Replacement& replacement : replacements_) {
    if (const auto changed = replacement.apply(piece, most, piece); !changed) return changed.error();
  }
  if (byte_fallback_) {
    if (const int byte = byte_of(piece); byte >= 0) piece.assign(1, static_cast<char>(byte));
  }
  size_t from = 0;
  if (!state.inside) {
    while (from < piece.size() && state.stripped < strip_most_ && piece[from] == strip_) ++from, ++state.stripped;
    state.inside = from < piece.size() || state.stripped == strip_most_;
  }
  out.append(piece, from);
  return {};
}

}  // namespace qb::text
