#include "text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>

#include "base/diagnostics.h"
#include "base/json.h"
#include "base/utf8.h"

namespace qb::text {
namespace {

constexpr int64_t most_tokens = 1 << 24;

Error refuse(std::string what) {
  return {Errc::invalid_argument, "tokenizer.json: " + std::move(what)};
}

// GPT-2's alphabet: printable Latin-1 bytes are themselves, the others are U+0100 and up in order.
const std::array<uint16_t, 256>& alphabet() {
  static const std::array<uint16_t, 256> points = [] {
    std::array<uint16_t, 256> p{};
    uint16_t next = 256;
    for (uint16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      p[b] = printable ? b : next++;
    }
    return p;
  }();
  return points;
}

const std::array<int16_t, 512>& bytes_of_alphabet() {
  static const std::array<int16_t, 512> bytes = [] {
    std::array<int16_t, 512> b{};
    b.fill(-1);
    for (size_t i = 0; i < 256; ++i) b[alphabet()[i]] = static_cast<int16_t>(i);
    return b;
  }();
  return bytes;
}

std::string spelled(uint8_t byte) {
  const uint16_t point = alphabet()[byte];
  if (point < 0x80) return {static_cast<char>(point)};
  return {static_cast<char>(0xC0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3F))};
}

constexpr uint64_t pair_key(uint32_t left, uint32_t right) {
  return (static_cast<uint64_t>(left) << 32) | right;
}

uint32_t last_point(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  return decode_utf8(text.substr(at)).point;
}

}  // namespace

bool from_byte_alphabet(std::string_view token, std::string& bytes) {
  bytes.clear();
  for (size_t i = 0; i < token.size();) {
    const Utf8Char c = decode_utf8(token.substr(i));
    const int byte = c.bytes != 0 && c.point < 512 ? bytes_of_alphabet()[c.point] : -1;
    if (byte < 0) {
      bytes = token;
      return false;
    }
    bytes += static_cast<char>(byte);
    i += c.bytes;
  }
  return true;
}

Result<void> Bpe::load(const Json& model, bool byte_level) {
  byte_level_ = byte_level;
  if (!model.is_object()) return refuse("'model' is not an object");
  const Json* type = find(model, "type");
  // Old files leave the type out; merges tell what they are.
  if (type != nullptr && string_at(model, "type") != "BPE") {
    return refuse(fmt::format("the model '{}' is not supported: BPE is", escape(string_at(model, "type", "(not a string)"))));
  }
  for (const char* const key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* v = find(model, key);
    if (v != nullptr && !v->is_null() && !(v->is_string() && v->get_ref<const std::string&>().empty())) {
      return refuse(fmt::format("'{}' of the BPE model is not supported", key));
    }
  }
  if (const Json* v = find(model, "dropout"); v != nullptr && !v->is_null() && !(v->is_number() && v->get<double>() == 0)) {
    return refuse("'dropout' of the BPE model is not supported: the same text would give different tokens");
  }
  const Json* vocab = find(model, "vocab");
  const Json* merges = find(model, "merges");
  if (vocab == nullptr || !vocab->is_object()) return refuse("'model.vocab' is not an object");
  if (merges == nullptr || !merges->is_array()) return refuse("'model.merges' is not a list");
  QB_TRY(load_vocab(*vocab));
  QB_TRY(load_merges(*merges));
  if (bool_at(model, "byte_fallback", false)) QB_TRY(load_byte_fallback());
  fuse_unk_ = bool_at(model, "fuse_unk", false);
  if (const Json* v = find(model, "unk_token"); v != nullptr && !v->is_null()) {
    if (!v->is_string()) return refuse("'model.unk_token' is not a string");
    unk_ = id_of(v->get_ref<const std::string&>());
    if (unk_ < 0) return refuse(fmt::format("'model.unk_token' is '{}', which the vocabulary does not hold", escape(v->get_ref<const std::string&>())));
  }
  ignore_merges_ = bool_at(model, "ignore_merges", false);
  if (ignore_merges_ && byte_level_) {
    std::string bytes;
    for (const auto& [token, id] : ids_) {
      if (from_byte_alphabet(token, bytes)) whole_words_.emplace(bytes, id);
    }
  }
  return {};
}

Result<void> Bpe::load_vocab(const Json& vocab) {
  ids_.reserve(vocab.size());
  for (const auto& member : *vocab.get_ptr<const Json::object_t*>()) {
    const std::string& token = member.first;
    if (!member.second.is_number_integer()) return refuse(fmt::format("the id of '{}' is not an integer", escape(token)));
    const auto id = member.second.get<int64_t>();
    // Two limits: the range, and gaps, so that a short file cannot ask for gigabytes.
    const int64_t last = std::min(most_tokens, static_cast<int64_t>(vocab.size()) * 4 + 65536);
    if (id < 0 || id >= last) return refuse(fmt::format("the id {} of '{}' is not in 0 to {}", id, escape(token), last - 1));
    const auto at = static_cast<size_t>(id);
    if (at >= tokens_.size()) tokens_.resize(at + 1);
    if (!tokens_[at].empty()) return refuse(fmt::format("'{}' and '{}' share the id {}", escape(tokens_[at]), escape(token), id));
    tokens_[at] = token;
    ids_.emplace(token, static_cast<int32_t>(id));
  }
  for (size_t b = 0; b < 256; ++b) byte_ids_[b] = byte_level_ ? id_of(spelled(static_cast<uint8_t>(b))) : -1;
  if (byte_level_) return {};
  for (const auto& [token, id] : ids_) {
    const Utf8Char c = decode_utf8(token);
    if (c.bytes > 0 && c.bytes == token.size()) character_ids_.emplace(c.point, id);
  }
  return {};
}

Result<void> Bpe::load_byte_fallback() {
  if (byte_level_) {
    // With all bytes in the vocabulary nothing is left to fall back from.
    for (const int32_t id : byte_ids_) {
      if (id < 0) return refuse("'byte_fallback' with a byte-level vocabulary that lacks bytes is not supported");
    }
    return {};
  }
  byte_fallback_ = true;
  for (size_t b = 0; b < 256; ++b) byte_ids_[b] = id_of(fmt::format("<0x{:02X}>", b));
  return {};
}

Result<void> Bpe::load_merges(const Json& merges) {
  merges_.reserve(merges.size());
  int32_t rank = 0;
  std::string joined;
  for (const Json& merge : merges) {
    std::string_view left, right;
    if (const auto* text = merge.get_ptr<const std::string*>()) {
      if (text->starts_with("#version")) continue;
      const size_t blank = text->find(' ');
      if (blank == std::string::npos || text->find(' ', blank + 1) != std::string::npos) {
        return refuse(fmt::format("merge {} is '{}', which is not two tokens", rank, escape(*text)));
      }
      left = std::string_view(*text).substr(0, blank), right = std::string_view(*text).substr(blank + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = *merge[0].get_ptr<const std::string*>(), right = *merge[1].get_ptr<const std::string*>();
    } else {
      return refuse(fmt::format("merge {} is not two tokens", rank));
    }
    joined.assign(left).append(right);
    const int32_t a = id_of(left), b = id_of(right), made = id_of(joined);
    if (a < 0 || b < 0 || made < 0) {
      return refuse(fmt::format("merge {}: the vocabulary does not hold '{}'", rank, escape(a < 0 ? left : b < 0 ? right : std::string_view(joined))));
    }
    merges_.insert_or_assign(pair_key(static_cast<uint32_t>(a), static_cast<uint32_t>(b)), Merge{rank, made});
    ++rank;
    if (!byte_level_ && !left.empty() && !right.empty()) joints_.insert(pair_key(last_point(left), decode_utf8(right).point));
  }
  return {};
}

int32_t Bpe::id_of(std::string_view token) const {
  const auto at = ids_.find(token);
  return at == ids_.end() ? -1 : at->second;
}

const std::string* Bpe::token_of(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return nullptr;
  const std::string& token = tokens_[static_cast<size_t>(id)];
  return token.empty() && id_of("") != id ? nullptr : &token;
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  const auto at = merges_.find(pair_key(static_cast<uint32_t>(left), static_cast<uint32_t>(right)));
  return at == merges_.end() ? nullptr : &at->second;
}

int32_t Bpe::id_of_character(uint32_t point) const {
  const auto at = character_ids_.find(point);
  return at == character_ids_.end() ? -1 : at->second;
}

size_t Bpe::part_end(std::string_view word, size_t from) const {
  if (byte_level_ || ignore_merges_) return word.size();
  // Only between two known characters: there a symbol's spelling is the text that it covers, and no unknown token waits to be fused.
  Utf8Char before;
  bool known_before = false;
  for (size_t at = from; at < word.size();) {
    const Utf8Char c = decode_utf8(word.substr(at));
    const bool known = character_ids_.count(c.point) != 0;
    if (known && known_before && joints_.count(pair_key(before.point, c.point)) == 0) return at;
    before = c, known_before = known;
    at += c.bytes;
  }
  return word.size();
}

template <class Put>
void Bpe::first_symbols(std::string_view word, Put put) const {
  // Of the library: what waits is an unknown token, and only a known character or another unknown one sends it, not bytes that one falls back to.
  bool waiting = false;
  const auto unknown = [&] {
    // Without a token for it, it becomes nothing.
    if (unk_ >= 0 && waiting && !fuse_unk_) put(unk_);
    waiting = unk_ >= 0;
  };
  const auto known = [&](int32_t id) {
    if (waiting) put(unk_);
    waiting = false;
    put(id);
  };
  if (byte_level_) {
    for (const char c : word) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
      id >= 0 ? known(id) : unknown();
    }
  } else {
    for (size_t at = 0; at < word.size();) {
      const Utf8Char c = decode_utf8(word.substr(at));
      const std::string_view bytes = word.substr(at, c.bytes);
      at += c.bytes;
      const auto has_token = [&](char b) { return byte_ids_[static_cast<unsigned char>(b)] >= 0; };
      if (const int32_t id = id_of_character(c.point); id >= 0)
        known(id);
      else if (byte_fallback_ && std::all_of(bytes.begin(), bytes.end(), has_token))
        for (const char b : bytes) put(byte_ids_[static_cast<unsigned char>(b)]);
      else
        unknown();
    }
  }
  if (waiting) put(unk_);
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    const auto& words = byte_level_ ? whole_words_ : ids_;
    if (const auto at = words.find(word); at != words.end()) {
      out.push_back(at->second);
      return;
    }
  }
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  first_symbols(word, [&](int32_t id) { symbols.push_back({id, static_cast<int32_t>(symbols.size()) - 1, static_cast<int32_t>(symbols.size()) + 1, false}); });
  if (symbols.empty()) return;
  symbols.back().next = -1;

  struct Step {
    int32_t rank, at, id;
    bool operator>(const Step& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  std::vector<Step> first;
  const auto step = [&](int32_t at, auto put) {
    const Symbol& s = symbols[static_cast<size_t>(at)];
    if (s.next < 0) return;
    if (const Merge* m = merge_of(s.id, symbols[static_cast<size_t>(s.next)].id)) put(Step{m->rank, at, m->id});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) step(static_cast<int32_t>(i), [&](Step s) { first.push_back(s); });
  std::priority_queue<Step, std::vector<Step>, std::greater<>> queue(std::greater<>(), std::move(first));
  while (!queue.empty()) {
    const Step top = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(top.at)];
    if (left.dead || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // The pair may have changed since it was queued.
    const Merge* now = merge_of(left.id, right.id);
    if (now == nullptr || now->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.dead = true;
    if (right.next >= 0) symbols[static_cast<size_t>(right.next)].previous = top.at;
    if (left.previous >= 0) step(left.previous, [&](Step s) { queue.push(s); });
    step(top.at, [&](Step s) { queue.push(s); });
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) out.push_back(symbols[static_cast<size_t>(i)].id);
}

}  // namespace qb::text
