#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <unordered_map>

#include "base/diagnostics.h"
#include "base/json.h"
#include "base/utf8.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace qb::text {
namespace {

// Words that one call remembers, and how long they may be: most of a text is its few thousand most frequent words.
constexpr size_t most_cached = 1 << 16, longest_cached = 64;
constexpr size_t longest_text = std::numeric_limits<int32_t>::max();
// Of one word, which takes about forty times as many bytes while it is merged.
constexpr size_t longest_word = size_t{1} << 26;

Error refuse(std::string what) {
  return {Errc::invalid_argument, "tokenizer.json: " + std::move(what)};
}

const Json* present(const Json& object, std::string_view key) {
  const Json* v = find(object, key);
  return v == nullptr || v->is_null() ? nullptr : v;
}

}  // namespace

struct Tokenizer::Impl {
  Bpe bpe;
  std::vector<AddedToken> added;
  std::unordered_map<std::string, int32_t> added_ids;
  std::unordered_map<int32_t, size_t> added_at;  // id -> index into `added`
  AddedTokenFinder raw, normalized;              // found before and after the normalizer
  Normalizer normalizer;
  PreTokenizer pre;
  Decoder decoder;
  std::vector<TokenId> before, after;  // of the post-processor
  std::shared_ptr<const Regex> word_character;

  Result<void> load_added(const Json& tokens);
  Result<void> load_post_processor(const Json& config);
  Result<void> load_template(const Json& config);
  const std::string* token_of(TokenId id) const;

  using Cache = std::unordered_map<std::string_view, std::pair<uint32_t, uint32_t>>;
  // Words of one text; each is encoded once. The cache's values are ranges of `out`.
  struct Run {
    std::vector<TokenId>& out;
    Cache cache;
    std::vector<std::string_view> words;
    std::deque<std::string> storage;  // owns what is not in the caller's text
  };
  Result<void> encode_plain(std::string_view text, bool at_start, Run& run) const;
  void encode_word(std::string_view word, Run& run) const;
};

Result<void> Tokenizer::Impl::load_added(const Json& tokens) {
  if (!tokens.is_array()) return refuse("'added_tokens' is not a list");
  // The library numbers what the vocabulary lacks by itself; another number in the file would be ignored there.
  auto next = static_cast<int64_t>(bpe.vocab_size());
  for (const Json& entry : tokens) {
    const Json* content = entry.is_object() ? find(entry, "content") : nullptr;
    const Json* id = entry.is_object() ? find(entry, "id") : nullptr;
    if (content == nullptr || !content->is_string() || id == nullptr || !id->is_number_integer()) {
      return refuse("an entry of 'added_tokens' has no content or no integer id");
    }
    AddedToken token;
    token.content = *content->get_ptr<const std::string*>();
    if (token.content.empty()) continue;  // as the library does
    const auto wanted = id->get<int64_t>();
    const int32_t known = bpe.id_of(token.content);
    if (wanted < 0 || wanted > (1 << 24) || (known >= 0 && known != wanted)) {
      return refuse(fmt::format("the added token '{}' has the id {}, the vocabulary says {}", escape(token.content), wanted, known));
    }
    token.id = static_cast<int32_t>(wanted);
    if (known < 0 && bpe.token_of(token.id) != nullptr) {
      return refuse(
          fmt::format("the added token '{}' has the id {}, which is '{}' in the vocabulary", escape(token.content), wanted, escape(*bpe.token_of(token.id))));
    }
    if (known < 0 && wanted != next++) {
      return refuse(fmt::format("the added token '{}' has the id {}, expected {}: the next free one", escape(token.content), wanted, next - 1));
    }
    token.special = bool_at(entry, "special", false);
    token.normalized = bool_at(entry, "normalized", !token.special);
    token.single_word = bool_at(entry, "single_word", false);
    token.lstrip = bool_at(entry, "lstrip", false);
    token.rstrip = bool_at(entry, "rstrip", false);
    if (!added_ids.emplace(token.content, token.id).second) return refuse(fmt::format("the added token '{}' stands there twice", escape(token.content)));
    added_at.emplace(token.id, added.size());
    std::deque<std::string> storage;
    std::string_view pattern = token.content;
    if (token.normalized) {
      QB_ASSIGN(pattern, normalizer.apply(token.content, storage));
    }
    token.decoded = pattern;
    // Which of the two it finds is chance in the library.
    if (!(token.normalized ? normalized : raw).add(token.decoded, token)) {
      return refuse(fmt::format("the added token '{}' is another one once it is normalized, which is not supported", escape(token.content)));
    }
    added.push_back(std::move(token));
  }
  return {};
}

Result<void> Tokenizer::Impl::load_post_processor(const Json& config) {
  const std::string_view type = config.is_object() ? string_at(config, "type") : std::string_view();
  if (type == "ByteLevel") return {};  // it changes offsets only
  if (type == "TemplateProcessing") return load_template(config);
  const Json* parts = type == "Sequence" ? find(config, "processors") : nullptr;
  if (parts == nullptr || !parts->is_array()) {
    return refuse(fmt::format("the post-processor '{}' is not supported: ByteLevel, TemplateProcessing and Sequence are", escape(type)));
  }
  for (const Json& part : *parts) QB_TRY(load_post_processor(part));
  return {};
}

Result<void> Tokenizer::Impl::load_template(const Json& config) {
  const Json* single = find(config, "single");
  const Json* tokens = find(config, "special_tokens");
  if (single == nullptr || !single->is_array()) return refuse("the post-processor TemplateProcessing has no list 'single'");
  std::vector<TokenId> first, last;
  bool seen = false;
  for (const Json& piece : *single) {
    const Json* sequence = piece.is_object() ? find(piece, "Sequence") : nullptr;
    const Json* token = piece.is_object() ? find(piece, "SpecialToken") : nullptr;
    if (sequence != nullptr && sequence->is_object() && string_at(*sequence, "id") == "A" && !seen) {
      seen = true;
      continue;
    }
    const std::string_view name = token != nullptr && token->is_object() ? string_at(*token, "id") : std::string_view();
    const Json* entry = tokens != nullptr && tokens->is_object() ? find(*tokens, name) : nullptr;
    const Json* ids = entry != nullptr && entry->is_object() ? find(*entry, "ids") : nullptr;
    if (ids == nullptr || !ids->is_array()) return refuse("'single' of TemplateProcessing must hold the sequence A once, and special tokens with ids");
    for (const Json& id : *ids) {
      const int64_t value = id.is_number_integer() ? id.get<int64_t>() : -1;
      if (value < 0 || value > std::numeric_limits<int32_t>::max()) return refuse(fmt::format("the ids of '{}' in TemplateProcessing", escape(name)));
      (seen ? last : first).push_back(static_cast<TokenId>(value));
    }
  }
  if (!seen) return refuse("'single' of TemplateProcessing does not hold the sequence A");
  before.insert(before.begin(), first.begin(), first.end());
  after.insert(after.end(), last.begin(), last.end());
  return {};
}

const std::string* Tokenizer::Impl::token_of(TokenId id) const {
  if (const auto at = added_at.find(id); at != added_at.end()) return &added[at->second].decoded;
  return bpe.token_of(id);
}

Result<void> Tokenizer::Impl::encode_plain(std::string_view text, bool at_start, Run& run) const {
  QB_TRY(pre.split(text, at_start, run.words, run.storage));
  for (const std::string_view word : run.words) {
    for (size_t from = 0; from < word.size();) {
      const size_t end = bpe.part_end(word, from);
      if (end - from > longest_word) {
        return Error{Errc::invalid_argument, fmt::format("a text with a word of {} bytes, which nothing cuts: at most {} are taken", end - from, longest_word)};
      }
      encode_word(word.substr(from, end - from), run);
      from = end;
    }
  }
  return {};
}

void Tokenizer::Impl::encode_word(std::string_view word, Run& run) const {
  const bool cached = word.size() <= longest_cached;
  if (cached) {
    if (const auto at = run.cache.find(word); at != run.cache.end()) {
      for (uint32_t i = 0; i < at->second.second; ++i) {
        const TokenId id = run.out[at->second.first + i];
        run.out.push_back(id);
      }
      return;
    }
  }
  const size_t first = run.out.size();
  bpe.encode(word, run.out);
  if (cached && run.cache.size() < most_cached) {
    run.cache.emplace(word, std::pair(static_cast<uint32_t>(first), static_cast<uint32_t>(run.out.size() - first)));
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(std::string_view json, RegexCompiler regex) {
  Json document;
  JsonError error;
  if (!parse_json(json, document, error)) return refuse(error.what);
  if (!document.is_object()) return refuse("not an object");
  auto impl = std::make_unique<Impl>();
  const Json* model = present(document, "model");
  if (model == nullptr) return refuse("no 'model'");
  if (const Json* normalizer = present(document, "normalizer")) QB_TRY(impl->normalizer.load(*normalizer, regex));
  if (const Json* pre = present(document, "pre_tokenizer")) QB_TRY(impl->pre.load(*pre, regex));
  // The library asks where a word was before it was normalized, which is not kept here.
  if (impl->pre.wants_start() && !impl->normalizer.keeps_start()) {
    return refuse("a Metaspace with the prepend_scheme 'first' after a normalizer other than NFC and a Replace of one character by one is not supported");
  }
  QB_TRY(impl->bpe.load(*model, impl->pre.byte_level()));
  // \w of the library's own expressions.
  QB_ASSIGN(impl->word_character, regex("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d]"));
  if (const Json* tokens = present(document, "added_tokens")) QB_TRY(impl->load_added(*tokens));
  if (const Json* post = present(document, "post_processor")) QB_TRY(impl->load_post_processor(*post));
  const Json* decoder = present(document, "decoder");
  if (decoder == nullptr) return refuse("no decoder");
  QB_TRY(impl->decoder.load(*decoder, regex));
  if (impl->decoder.byte_level() != impl->pre.byte_level()) {
    return refuse("of the pre-tokenizer and the decoder one is ByteLevel and the other is not, which is not supported");
  }
  return Tokenizer(std::move(impl));
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, bool add_special) const {
  if (text.size() > longest_text) return Error{Errc::invalid_argument, fmt::format("a text of {} bytes: at most {} are taken", text.size(), longest_text)};
  if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    return Error{Errc::invalid_argument, fmt::format("the text is not UTF-8 at byte {}", at)};
  }
  std::vector<TokenId> out;
  if (add_special) out = impl_->before;
  Impl::Run run{out, {}, {}, {}};
  std::vector<Part> parts, inner;
  impl_->raw.split(text, *impl_->word_character, parts);
  for (const Part& part : parts) {
    if (part.id >= 0) {
      out.push_back(part.id);
      continue;
    }
    QB_ASSIGN(const std::string_view plain, impl_->normalizer.apply(part.text, run.storage));
    inner.clear();
    impl_->normalized.split(plain, *impl_->word_character, inner);
    for (const Part& p : inner) {
      if (p.id >= 0)
        out.push_back(p.id);
      else
        QB_TRY(impl_->encode_plain(p.text, part.text.data() == text.data() && p.text.data() == plain.data(), run));
    }
  }
  if (add_special) out.insert(out.end(), impl_->after.begin(), impl_->after.end());
  return out;
}

Result<std::string> Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string out;
  DecodeState state;
  for (const TokenId id : ids) {
    if (!skip_special || !is_special(id)) QB_TRY(decode_next(id, state, out));
  }
  return out;
}

Result<void> Tokenizer::decode_next(TokenId id, DecodeState& state, std::string& out) const {
  const std::string* token = impl_->token_of(id);
  if (token == nullptr) return Error{Errc::invalid_argument, fmt::format("no token has the id {}: ids are 0 to {}", id, size() - 1)};
  return impl_->decoder.append(*token, state, out);
}

bool Tokenizer::is_special(TokenId id) const {
  const auto at = impl_->added_at.find(id);
  return at != impl_->added_at.end() && impl_->added[at->second].special;
}

TokenId Tokenizer::id_of(std::string_view token) const {
  const auto at = impl_->added_ids.find(std::string(token));
  return at != impl_->added_ids.end() ? at->second : impl_->bpe.id_of(token);
}

int64_t Tokenizer::size() const {
  auto n = static_cast<int64_t>(impl_->bpe.tokens().size());
  for (const AddedToken& token : impl_->added) n = std::max<int64_t>(n, token.id + 1);
  return n;
}

Result<std::string> TokenStream::push(TokenId id) {
  std::string bytes;
  if (!tokenizer_.is_special(id)) QB_TRY(tokenizer_.decode_next(id, state_, bytes));
  return characters_.push(bytes);
}

}  // namespace qb::text
