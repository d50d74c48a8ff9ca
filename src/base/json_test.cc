#include "base/json.h"

#include <gtest/gtest.h>

#include <chrono>

namespace qb {
namespace {

std::string code_of(std::string_view text, int max_depth = 64) {
  Json out = 17;
  JsonError error;
  if (parse_json(text, out, error, max_depth)) return "";
  EXPECT_EQ(out, Json(17)) << "untouched on failure";
  EXPECT_NE(error.what.find("byte "), std::string::npos) << error.what;
  return error.code;
}

TEST(Json, KeepsOrderAndValues) {
  const std::string text = R"({"b":[1,-2,3.5,true,null,{"x":"é\n"}],"a":18446744073709551615,"c":{}})";
  Json out;
  JsonError error;
  ASSERT_TRUE(parse_json(text, out, error)) << error.what;
  EXPECT_EQ(dump_json(out, -1), text);
  EXPECT_EQ(dump_json(out)[0], '{');
  EXPECT_EQ(out.size(), 3U);
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "[1,]", "{\"a\":1,}", "{'a':1}", "nul", "[1] x", "// c\n1", "\"\\ud800\"", "\"\xC3\x28\"", "\"\xED\xA0\x80\"", "1e999",
                           "[NaN]", "\xEF\xBB\xBF{}", "\"a\nb\"", "01"}) {
    EXPECT_EQ(code_of(text), "json-invalid") << text;
  }
  EXPECT_EQ(code_of(std::string_view("{}\0garbage", 10)), "json-invalid") << "a NUL does not end the text";
  EXPECT_EQ(code_of(std::string_view("\0", 1)), "json-invalid");
}

TEST(Json, LongTokensGiveShortMessages) {
  Json out;
  JsonError error;
  ASSERT_FALSE(parse_json("\"" + std::string(1 << 20, 'x'), out, error));
  EXPECT_LT(error.what.size(), 300U);
}

TEST(Json, Depth) {
  EXPECT_EQ(code_of(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_EQ(code_of(std::string(65, '[') + std::string(65, ']')), "json-too-deep");
  EXPECT_EQ(code_of(std::string(1 << 20, '[')), "json-too-deep");
  EXPECT_EQ(code_of("[]", 0), "json-too-deep");
  EXPECT_EQ(code_of("1", 0), "");
}

TEST(Json, DuplicateKeys) {
  EXPECT_EQ(code_of(R"({"a":1,"b":2,"a":3})"), "json-duplicate-key");
  EXPECT_EQ(code_of(R"({"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]})"), "");
  EXPECT_EQ(code_of(R"({"x":{"a":1,"\u0061":3}})"), "json-duplicate-key");
}

TEST(Json, ManyKeysAreNotQuadratic) {
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) text += "\"key" + std::to_string(i) + "\":0,";
  text += "\"end\":0}";
  Json out;
  JsonError error;
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(parse_json(text, out, error)) << error.what;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));  // quadratic would be minutes
  EXPECT_EQ(out.size(), 300'001U);
}

TEST(Json, Lookups) {
  Json out;
  JsonError error;
  ASSERT_TRUE(parse_json(R"({"s":"x","i":-3,"u":9223372036854775808,"b":true,"f":1.5,"n":null})", out, error));
  EXPECT_EQ(string_at(out, "s"), "x");
  EXPECT_EQ(string_at(out, "i", "none"), "none");
  EXPECT_EQ(int_at(out, "i", 0), -3);
  EXPECT_EQ(int_at(out, "u", 7), 7) << "does not fit";
  EXPECT_EQ(int_at(out, "f", 7), 7);
  EXPECT_TRUE(bool_at(out, "b", false));
  EXPECT_TRUE(bool_at(out, "n", true));
  EXPECT_EQ(find(out, "absent"), nullptr);
  EXPECT_EQ(find(Json(1), "s"), nullptr);
}

TEST(Json, DumpReplacesInvalidUtf8) {
  EXPECT_EQ(dump_json(Json("\xC3\x28"), -1), "\"\xEF\xBF\xBD(\"");
}

}  // namespace
}  // namespace qb
