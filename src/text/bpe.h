// Byte-pair encoding of one word, as the BPE model of the `tokenizers` library does it.
//
// In a byte-level vocabulary words are raw bytes; the file spells each byte as a printable character (GPT-2's alphabet), which loading undoes. In any other
// (SentencePiece's) words are UTF-8 and begin as their characters; one that the vocabulary lacks becomes the tokens of its bytes ("<0x41>") or the unknown
// token.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace qb::text {

// Bytes that a token of a byte-level vocabulary stands for. A token with a character outside the alphabet stands for its own UTF-8, as in the library's
// decoder. Returns whether all characters were in the alphabet.
bool from_byte_alphabet(std::string_view token, std::string& bytes);

class Bpe {
 public:
  // `model` is the object "model" of tokenizer.json.
  Result<void> load(const Json& model, bool byte_level);

  // Appends the ids of `word`. Const and thread-safe. Time grows as n log n, memory as n.
  void encode(std::string_view word, std::vector<int32_t>& out) const;

  // Where the part of `word` ends that begins at `from`, so that encoding the parts one by one is encoding `word`: no merge has both sides of such a place in
  // it. That makes words of a text which has no pre-tokenizer. The end of `word` where parts are not to be had (byte level, ignore_merges).
  size_t part_end(std::string_view word, size_t from) const;

  int32_t id_of(std::string_view token) const;    // as the file spells it; -1: none
  const std::string* token_of(int32_t id) const;  // as the file spells it; null: none
  const std::vector<std::string>& tokens() const { return tokens_; }
  size_t vocab_size() const { return ids_.size(); }  // without gaps

 private:
  struct Merge {
    int32_t rank, id;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  struct PairHash {
    size_t operator()(uint64_t key) const { return static_cast<size_t>((key ^ (key >> 29)) * 0x9E3779B97F4A7C15ULL); }
  };
  struct Symbol {
    int32_t id, previous, next;
    bool dead;
  };

  Result<void> load_vocab(const Json& vocab);
  Result<void> load_merges(const Json& merges);
  Result<void> load_byte_fallback();
  int32_t id_of_character(uint32_t point) const;
  template <class Put>
  void first_symbols(std::string_view word, Put put) const;
  const Merge* merge_of(int32_t left, int32_t right) const;

  std::vector<std::string> tokens_;  // by id; empty and not in ids_: a gap
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> whole_words_;  // byte level: by raw bytes, for ignore_merges
  std::unordered_map<uint64_t, Merge, PairHash> merges_;
  std::array<int32_t, 256> byte_ids_{};  // byte level: of the alphabet's characters; else of "<0x00>" and so on
  std::unordered_map<uint32_t, int32_t> character_ids_;
  std::unordered_set<uint64_t, PairHash> joints_;  // last and first characters that a merge puts together
  bool byte_level_ = true, byte_fallback_ = false, ignore_merges_ = false;
  int32_t unk_ = -1;
  bool fuse_unk_ = false;
};

}  // namespace qb::text
