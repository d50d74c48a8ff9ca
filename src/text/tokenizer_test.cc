#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "base/json.h"
#include "base/utf8.h"
#include "host/host.h"
#include "text/oniguruma.h"
#include "text/unicode_form.h"

namespace qb::text {
namespace {

std::string file(const std::string& name) {
  std::ifstream in(QB_TEST_DATA "/text/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Json json_file(const std::string& name) {
  Json out;
  JsonError error;
  EXPECT_TRUE(parse_json(file(name), out, error)) << name << ": " << error.what;
  return out;
}

// A tokenizer with members replaced, those of the model one by one.
Result<Tokenizer> load_with(const Json& patch, const std::string& name = "tokenizer.json") {
  Json document = json_file(name);
  for (const auto& [key, value] : patch.items()) {
    if (key == "model")
      document[key].update(value);
    else
      document[key] = value;
  }
  return Tokenizer::load(dump_json(document), host::compile_regex);
}

Json parsed(std::string_view text) {
  Json out;
  JsonError error;
  EXPECT_TRUE(parse_json(text, out, error)) << error.what;
  return out;
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  TokenStream stream(tokenizer);
  std::string out;
  for (const TokenId id : ids) {
    const auto piece = stream.push(id);
    EXPECT_TRUE(piece.ok());
    if (piece) out += *piece;
    EXPECT_EQ(find_invalid_utf8(out), std::string::npos);
  }
  return out + stream.finish();
}

TEST(tokenizer, agrees_with_the_tokenizers_library) {
  size_t texts = 0, decoded = 0;
  for (const Json& c : json_file("token_cases.json")) {
    const auto tokenizer = load_with(*find(c, "patch"), std::string(string_at(c, "file")));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().what;
    for (const Json& text : *find(c, "texts")) {
      const auto ids = tokenizer->encode(text[0].get<std::string>(), true);
      ASSERT_TRUE(ids.ok()) << ids.error().what;
      EXPECT_EQ(*ids, text[1].get<std::vector<TokenId>>()) << string_at(c, "name") << ": " << text[0];
      ++texts;
    }
    if (find(c, "decoded") == nullptr) continue;
    for (const Json& text : *find(c, "decoded")) {
      const auto ids = text[0].get<std::vector<TokenId>>();
      const auto bytes = tokenizer->decode(ids, true);
      ASSERT_TRUE(bytes.ok()) << bytes.error().what;
      EXPECT_EQ(*bytes, text[1].get<std::string>()) << string_at(c, "name");
      EXPECT_EQ(streamed(*tokenizer, ids), *bytes) << string_at(c, "name");
      ++decoded;
    }
  }
  EXPECT_GT(texts, 700U);
  EXPECT_GT(decoded, 1000U);
}

TEST(tokenizer, streams_whole_characters_and_strips_at_the_start_only) {
  const auto t = load_with(Json::object(), "sentencepiece_llama.json");
  ASSERT_TRUE(t.ok()) << t.error().what;
  TokenStream stream(*t);
  const TokenId space = t->id_of("\xE2\x96\x81");
  EXPECT_EQ(*stream.push(t->id_of("<s>")), "");
  EXPECT_EQ(*stream.push(space), "");
  EXPECT_EQ(*stream.push(space), " ");
  EXPECT_EQ(*stream.push(t->id_of("\xE2\x96\x81the")), " the");
  for (const char* const byte : {"<0xF0>", "<0x9F>", "<0x91>"}) EXPECT_EQ(*stream.push(t->id_of(byte)), "");
  EXPECT_EQ(*stream.push(t->id_of("<0x8D>")), "\xF0\x9F\x91\x8D");
  EXPECT_EQ(*stream.push(t->id_of("<0xE6>")), "");
  EXPECT_EQ(*stream.push(t->id_of("a")),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(*stream.push(t->id_of("<0xE6>")), "");
  EXPECT_FALSE(stream.push(static_cast<TokenId>(t->size())).ok());
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

// Without a pre-tokenizer a text is one word.
TEST(tokenizer, a_word_of_any_length_takes_no_square_time) {
  for (const char* const file : {"sentencepiece_llama.json", "sentencepiece_gemma.json"}) {
    const auto t = load_with(Json::object(), file);
    ASSERT_TRUE(t.ok()) << t.error().what;
    for (const std::string part : {"a", " ", "\n", "the", "the weights of ", "\xE6\x97\xA5", "\xF0\x9F\x91\x8D", "<s>", "\t a\x01"}) {
      std::string text;
      while (text.size() < 300'000) text += part;
      const auto ids = t->encode(text, false);
      ASSERT_TRUE(ids.ok()) << ids.error().what;
      // Llama's puts a space after what it finds.
      EXPECT_TRUE(part == "<s>" || *t->decode(*ids, false) == text) << file << ": " << part;
    }
  }
}

TEST(tokenizer, words_beyond_a_limit_of_memory_are_refused) {
  const auto t = load_with(parsed(R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}})"));
  ASSERT_TRUE(t.ok()) << t.error().what;
  const auto ids = t->encode(std::string((size_t{1} << 26) + 1, 'a'), false);
  ASSERT_FALSE(ids.ok());
  EXPECT_NE(ids.error().what.find("67108865"), std::string::npos) << ids.error().what;
}

TEST(tokenizer, texts_that_grow_out_of_proportion_are_refused) {
  Json step = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'a')}};
  const auto t = load_with({{"normalizer", step}}, "sentencepiece_llama.json");
  ASSERT_TRUE(t.ok()) << t.error().what;
  EXPECT_TRUE(t->encode("b", false).ok());
  EXPECT_FALSE(t->encode("aaa", false).ok());
  step = {{"type", "Sequence"}, {"decoders", {{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'a')}}}}};
  const auto d = load_with({{"decoder", step}}, "sentencepiece_llama.json");
  ASSERT_TRUE(d.ok()) << d.error().what;
  EXPECT_FALSE(d->decode(std::vector<TokenId>{d->id_of("a")}, false).ok());
}

TEST(tokenizer, decodes_what_it_encodes) {
  const auto t = load_with(Json::object());
  ASSERT_TRUE(t.ok()) << t.error().what;
  std::string all;
  for (uint32_t point : {0x00U, 0x09U, 0x20U, 0x7FU, 0x80U, 0x7FFU, 0x800U, 0xFFFDU}) {
    all += point < 0x80    ? std::string(1, static_cast<char>(point))
           : point < 0x800 ? std::string{static_cast<char>(0xC0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3F))}
                           : std::string{static_cast<char>(0xE0 | (point >> 12)), static_cast<char>(0x80 | ((point >> 6) & 0x3F)),
                                         static_cast<char>(0x80 | (point & 0x3F))};
  }
  all += "<|user|> text\xF0\x9F\x91\x8D</s>";
  const auto ids = t->encode(all, false);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(*t->decode(*ids, false), all);
  const auto plain = t->decode(*ids, true);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->find("<|user|>"), std::string::npos);
  EXPECT_EQ(t->size(), 320);
  EXPECT_EQ(t->id_of("</s>"), 1);
  EXPECT_EQ(t->id_of("no such token"), -1);
  EXPECT_TRUE(t->is_special(1));
  EXPECT_FALSE(t->is_special(100));
  EXPECT_FALSE(t->decode(std::vector<TokenId>{320}, false).ok());
  EXPECT_FALSE(t->decode(std::vector<TokenId>{-1}, false).ok());
  EXPECT_FALSE(t->encode("a\xFF", false).ok());
}

TEST(tokenizer, long_runs_take_no_square_time) {
  const auto t = load_with(Json::object());
  ASSERT_TRUE(t.ok());
  for (const char c : {'t', ' ', '.', '\n'}) {
    const std::string run(300'000, c);
    const auto ids = t->encode(run, false);
    ASSERT_TRUE(ids.ok()) << ids.error().what;
    EXPECT_EQ(*t->decode(*ids, false), run);
  }
}

TEST(tokenizer, refuses_by_name) {
  struct Case {
    const char* patch;
    const char* says;
  };
  for (const Case& c :
       {Case{R"({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}})", "Precompiled"},
        Case{R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}})", "Lowercase"},
        Case{R"({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "a"}})", "Replace"},
        Case{R"({"pre_tokenizer": {"type": "Metaspace"}})", "replacement"},
        Case{R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "__"}})", "one character"},
        Case{R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"}})", "last"},
        Case{R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "add_prefix_space": false}})", "add_prefix_space"},
        Case{R"({"pre_tokenizer": {"type": "Digits"}})", "ByteLevel"},
        Case{R"({"pre_tokenizer": {"type": "Whitespace"}})", "Whitespace"},
        Case{R"({"pre_tokenizer": null})", "ByteLevel"},
        Case{R"({"normalizer": {"type": "Prepend", "prepend": "_"}, "decoder": {"type": "Fuse"},
                                 "pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}})",
             "'first'"},
        Case{R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}})", "after ByteLevel"},
        Case{R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"}})", "\\w"},
        Case{R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Shuffled"}})", "Shuffled"},
        Case{R"({"post_processor": {"type": "BertProcessing"}})", "BertProcessing"},
        Case{R"({"decoder": {"type": "WordPiece"}})", "WordPiece"},
        Case{R"({"decoder": null})", "decoder"},
        Case{R"({"decoder": {"type": "Sequence", "decoders": []}})", "empty"},
        Case{R"({"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Fuse"}]}})", "Fuse"},
        Case{R"({"decoder": {"type": "Strip", "content": " ", "start": 1, "stop": 0}})", "after Fuse"},
        Case{R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]}})", "at the end"},
        Case{R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}})", "ByteFallback"},
        Case{R"({"model": {"type": "Unigram"}})", "Unigram"},
        Case{R"({"model": {"type": "BPE", "vocab": {}, "merges": [], "byte_fallback": true}})", "lacks bytes"},
        Case{R"({"model": {"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.1}})", "dropout"},
        Case{R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})", "'b'"},
        Case{R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}})", "two tokens"},
        Case{R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})", "share the id"},
        Case{R"({"model": {"type": "BPE", "vocab": {"a": 99999999}, "merges": []}})", "99999999"},
        Case{R"({"added_tokens": [{"id": 5, "content": "<s>"}]})", "<s>"},
        Case{R"({"added_tokens": [{"id": 400, "content": "<new>"}]})", "<new>"},
        Case{R"({"normalizer": {"type": "NFD"}, "added_tokens": [{"id": 320, "content": "\u1ec7"}, {"id": 321, "content": "e\u0323\u0302"}]})",
             "normalized"}}) {
    const auto t = load_with(parsed(c.patch));
    ASSERT_FALSE(t.ok()) << c.patch;
    EXPECT_NE(t.error().what.find(c.says), std::string::npos) << t.error().what;
  }
}

TEST(tokenizer, patterns_that_would_mean_something_else_are_refused) {
  for (const char* const bad : {"\\w", "\\b", "\\h", "[[:alpha:]]", "[a&&b]", "a{2}+", "a{,3}", "(?m:.)", "(?<n>a)", "\\1", "\\p{^L}", "a**", "[a-\\d]", "(a",
                                "a)", "\\", "[a", "(*UTF)"}) {
    EXPECT_FALSE(translate_oniguruma(bad).ok()) << bad;
  }
  for (const char* const good : {"a++b*+c?+", "[^\\s\\p{L}\\p{N}]+", "(?<=a)b(?!c)", "\\x41\\x{1F600}\\u00e9", "x{1,3}?y{2,}z{4}", "[\\S\\n]"}) {
    const auto r = translate_oniguruma(good);
    ASSERT_TRUE(r.ok()) << r.error().what;
    EXPECT_TRUE(host::compile_regex(*r).ok()) << *r;
  }
}

TEST(tokenizer, patterns_are_searched_within_limits) {
  const auto hostile = host::compile_regex("(a|aa|b?a)+$");
  ASSERT_TRUE(hostile.ok());
  EXPECT_FALSE((*hostile)->find(std::string(5000, 'a') + "!", 0).ok());
  const auto digits = host::compile_regex("[0-9]+");
  ASSERT_TRUE(digits.ok());
  const auto found = (*digits)->find("12 ab 345", 2);
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((**found).begin, 6U);
  EXPECT_EQ((**found).end, 9U);
  EXPECT_FALSE((*(*digits)->find("12", 2)).has_value());
}

TEST(unicode_form, composes_and_bounds_runs_of_marks) {
  EXPECT_EQ(*to_form("e\xCC\x81", UnicodeForm::nfc), "\xC3\xA9");
  EXPECT_EQ(*to_form("plain", UnicodeForm::nfc), "plain");
  EXPECT_EQ(*to_form("\xEF\xAC\x81\xC3\xA9", UnicodeForm::nfkc), "fi\xC3\xA9");
  EXPECT_EQ(*to_form("\xEF\xAC\x81\xC3\xA9", UnicodeForm::nfkd), "fie\xCC\x81");
  EXPECT_EQ(*to_form("\xEF\xAC\x81\xC3\xA9", UnicodeForm::nfd),
            "\xEF\xAC\x81"
            "e\xCC\x81");
  std::string marks = "a";
  for (int i = 0; i < 5000; ++i) marks += "\xCC\x81";
  EXPECT_FALSE(to_form(marks, UnicodeForm::nfc).ok());
}

TEST(utf8_stream, hands_out_whole_characters) {
  const std::string text = "a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x91\x8D";
  Utf8Stream stream;
  std::string out;
  for (const char c : text) {
    out += stream.push(std::string_view(&c, 1));
    EXPECT_EQ(text.substr(0, out.size()), out);
  }
  EXPECT_EQ(out, text);
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("\xE6\x97"), "");
  EXPECT_EQ(stream.push("x\xFFy"), "\xEF\xBF\xBDx\xEF\xBF\xBDy");
  EXPECT_EQ(stream.push("\xF0\x9F"), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace qb::text
