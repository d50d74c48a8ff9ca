// Tokenizers: any tokenizer.json loads or is refused, any text is encoded or refused. Up to the first NUL byte: the file, or with nothing before it two small
// ones that have every byte, for which decoding gives the text back; after it: the text.
#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "host/host.h"
#include "text/tokenizer.h"

namespace {

using qb::text::Tokenizer;

// All 256 bytes and a few merges; the patterns of Llama 3 and of GPT-2.
const Tokenizer& small() {
  static const Tokenizer* const made = [] {
    std::string vocab;
    int next = 256;
    int id = 0;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const int point = printable ? b : next++;
      std::string spelled = point < 0x80 ? std::string(1, static_cast<char>(point))
                                         : std::string{static_cast<char>(0xC0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3F))};
      if (spelled == "\"" || spelled == "\\") spelled.insert(0, "\\");
      vocab += "\"" + spelled + "\": " + std::to_string(id++) + ", ";
    }
    vocab += R"("he": 256, "ll": 257, "hell": 258, "Ġt": 259, "ĠĠ": 260)";
    const std::string json = R"({"model": {"type": "BPE", "vocab": {)" + vocab + R"(}, "merges": ["h e", "l l", "he ll", "Ġ t", "Ġ Ġ"]},
            "added_tokens": [{"id": 261, "content": "<s>", "special": true}, {"id": 262, "content": "<|x|>"}],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "behavior": "Isolated", "pattern": {"Regex":
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
            {"type": "ByteLevel", "add_prefix_space": false}]}, "decoder": {"type": "ByteLevel"}})";
    auto r = Tokenizer::load(json, qb::host::compile_regex);
    if (!r) __builtin_trap();
    return new Tokenizer(std::move(*r));
  }();
  return *made;
}

// SentencePiece's kind: all bytes to fall back to, few characters, and no pre-tokenizer.
const Tokenizer& pieces() {
  static const Tokenizer* const made = [] {
    std::string vocab;
    for (int b = 0; b < 256; ++b) vocab += fmt::format(R"("<0x{:02X}>": {}, )", b, b);
    vocab += R"("▁": 256, "a": 257, "b": 258, "▁▁": 259, "▁a": 260, "ab": 261, "▁ab": 262, "é": 263, "aé": 264)";
    const std::string json = R"({"model": {"type": "BPE", "byte_fallback": true, "vocab": {)" + vocab +
                             R"(}, "merges": ["▁ ▁", "▁ a", "a b", "▁a b", "a é"]},
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "added_tokens": [{"id": 265, "content": "<s>", "special": true}, {"id": 266, "content": "<|x|>"}, {"id": 267, "content": "é b", "normalized": true}],
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}})";
    auto r = Tokenizer::load(json, qb::host::compile_regex);
    if (!r) __builtin_trap();
    return new Tokenizer(std::move(*r));
  }();
  return *made;
}

std::string spaced(std::string_view text) {
  constexpr std::string_view mark = "\xE2\x96\x81";
  std::string out(text);
  for (size_t at = 0; (at = out.find(mark, at)) != std::string::npos; ++at) out.replace(at, mark.size(), " ");
  return out;
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<qb::text::TokenId>& ids) {
  qb::text::TokenStream stream(tokenizer);
  std::string out;
  for (const auto id : ids) {
    const auto piece = stream.push(id);
    if (!piece || qb::find_invalid_utf8(*piece) != std::string_view::npos) __builtin_trap();
    out += *piece;
  }
  return out + stream.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\0');
  const std::string_view text = cut == std::string_view::npos ? "Hello 123 it's\n <s> x" : input.substr(cut + 1);
  if (cut == 0) {
    const auto ids = small().encode(text, true);
    if (ids.ok() != (qb::find_invalid_utf8(text) == std::string_view::npos)) __builtin_trap();
    if (ids && *small().decode(*ids, false) != text) __builtin_trap();
    // The other one gives each "▁" back as a space. What it streams leaves "<s>" out.
    const auto of_pieces = pieces().encode(text, true);
    if (of_pieces.ok() != ids.ok()) __builtin_trap();
    if (of_pieces && *pieces().decode(*of_pieces, false) != spaced(text)) __builtin_trap();
    if (of_pieces && streamed(pieces(), *of_pieces) != *pieces().decode(*of_pieces, true)) __builtin_trap();
  } else if (auto made = Tokenizer::load(input.substr(0, cut), qb::host::compile_regex)) {
    if (auto ids = made->encode(text, true)) (void)streamed(*made, *ids);
  }
  qb::text::Utf8Stream stream;
  std::string out;
  for (const char c : text) out += stream.push(std::string_view(&c, 1));
  out += stream.finish();
  if (qb::find_invalid_utf8(out) != std::string_view::npos) __builtin_trap();
  if (qb::find_invalid_utf8(text) == std::string_view::npos && out != text) __builtin_trap();
  return 0;
}
