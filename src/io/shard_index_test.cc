#include "io/shard_index.h"

#include <gtest/gtest.h>

#include <random>

#include "io/memory_source.h"

namespace qb {
namespace {

std::string codes(std::string_view text, ShardIndex* result = nullptr) {
  Diagnostics diag;
  ShardIndex out;
  const bool usable = parse_shard_index(text, out, diag);
  EXPECT_TRUE(usable || !diag.ok());
  std::string all;
  for (const Problem& p : diag.all()) {
    EXPECT_EQ(p.file, shard_index_name);
    all += (all.empty() ? "" : " ") + p.code;
  }
  if (result != nullptr) *result = out;
  return all;
}

std::string one(std::string_view file) {
  return R"({"weight_map":{"t":")" + std::string(file) + "\"}}";
}

TEST(ShardIndex, Reads) {
  ShardIndex index;
  ASSERT_EQ(codes(R"({"metadata":{"total_size":12,"x":[{"weight_map":3}]},"weight_map":{"z":"b","a":"a","m":"b"},"more":[[]]})", &index), "");
  EXPECT_EQ(index.files, (std::vector<std::string>{"a", "b"}));
  ASSERT_EQ(index.tensors.size(), 3U);
  EXPECT_EQ(index.tensors[0].tensor, "a");
  EXPECT_EQ(index.tensors[0].file, 0U);
  EXPECT_EQ(index.tensors[2].tensor, "z");
  EXPECT_EQ(index.tensors[2].file, 1U);
  EXPECT_EQ(codes(R"({"weight_map":{}})"), "");
}

TEST(ShardIndex, Refuses) {
  for (const char* text : {"[]", "1", "{}", R"({"metadata":{}})", R"({"weight_map":[]})", R"({"weight_map":null})", R"({"weight_map":"x"})",
                           R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":["b"]}})", R"({"weight_map":{"a":{}}})", R"({"weight_map":{"a":true}})"}) {
    EXPECT_EQ(codes(text), "index-invalid") << text;
  }
  EXPECT_EQ(codes("{"), "json-invalid");
  EXPECT_EQ(codes(R"({"weight_map":{"a":"b"})"), "json-invalid");
  EXPECT_EQ(codes(R"({"weight_map":{"a":"b","a":"c"}})"), "json-duplicate-key");
  EXPECT_EQ(codes(R"({"weight_map":{},"weight_map":{}})"), "json-duplicate-key");
  EXPECT_EQ(codes("{\"x\":" + std::string(100'000, '[')), "json-too-deep");
}

TEST(ShardIndex, NamesStayInTheDirectory) {
  for (const char* name : {"..", "../x", "a/../../x", "a/..", "/etc/passwd", "a\\\\b", "..\\\\x", "a\\u0000b", "C:x", "//x"}) {
    ShardIndex index;
    EXPECT_EQ(codes(one(name), &index), "index-path-traversal") << name;
    EXPECT_TRUE(index.files.empty());
    EXPECT_TRUE(index.tensors.empty());
  }
  for (const char* name : {"", ".", "./x", "a//b", "a/", "a/./b"}) EXPECT_EQ(codes(one(name)), "index-invalid") << name;
  for (const char* name : {"x", "..x", "x..", "a/b", "...", "model-00001-of-00002.safetensors", "größe"}) EXPECT_EQ(codes(one(name)), "") << name;
}

TEST(ShardIndex, RandomBytesNeverCrash) {
  const std::string text = R"({"metadata":{"total_size":12},"weight_map":{"z":"b","a":"a/x","m":"../b"}})";
  for (size_t n = 0; n < text.size(); ++n) EXPECT_NE(codes(text.substr(0, n)), "");
  std::mt19937 random(2);
  for (int i = 0; i < 20'000; ++i) {
    std::string mutant = text;
    for (unsigned k = 0; k < 1 + random() % 3; ++k) mutant[random() % mutant.size()] = static_cast<char>(random());
    ShardIndex index;
    codes(mutant, &index);
    for (const auto& e : index.tensors) ASSERT_LT(e.file, index.files.size());
  }
}

struct Merged {
  Package package;
  std::string codes;
};

// Files "a" and "b" with the tensors given, checked against the index.
Merged merge(std::vector<std::pair<std::string, FileId>> tensors, std::string_view index_text, bool b_complete = true) {
  Merged m;
  m.package.files = {{"a", 0, {}}, {"b", 0, {}}};
  for (auto& [name, file] : tensors) m.package.tensors.push_back({.name = name, .file = file});
  Diagnostics diag;
  ShardIndex index;
  EXPECT_TRUE(parse_shard_index(index_text, index, diag));
  const std::vector<IndexedFile> files{{0, true}, {1, b_complete}};
  merge_tensors(m.package, &index, files, diag);
  for (const Problem& p : diag.all()) m.codes += (m.codes.empty() ? "" : " ") + p.code + ":" + p.tensor;
  return m;
}

TEST(MergeTensors, AgainstTheIndex) {
  const char* index = R"({"weight_map":{"s":"a","t":"b","u":"b"}})";
  EXPECT_EQ(merge({{"t", 1}, {"u", 1}, {"s", 0}}, index).codes, "");
  EXPECT_EQ(merge({{"t", 1}, {"s", 0}}, index).codes, "index-tensor-missing:u");
  EXPECT_EQ(merge({{"u", 1}, {"t", 1}}, index).codes, "index-tensor-missing:s");
  EXPECT_EQ(merge({{"s", 0}}, index, false).codes, "") << "b is damaged and has said so";
  EXPECT_EQ(merge({{"s", 0}, {"t", 0}, {"u", 1}}, index).codes, "index-tensor-missing:t") << "in the other shard";
  EXPECT_EQ(merge({{"s", 0}, {"t", 1}, {"u", 1}, {"v", 1}}, index).codes, "index-tensor-unlisted:v");
  EXPECT_EQ(merge({{"s", 0}, {"t", 1}, {"u", 1}, {"a", 1}}, index).codes, "index-tensor-unlisted:a");
}

TEST(MergeTensors, KeepsTheCopyThatTheIndexNames) {
  Merged m = merge({{"s", 0}, {"t", 0}, {"t", 1}, {"u", 1}}, R"({"weight_map":{"s":"a","t":"b","u":"b"}})");
  EXPECT_EQ(m.codes, "tensor-duplicate:t");
  ASSERT_EQ(m.package.tensors.size(), 3U);
  ASSERT_NE(m.package.tensor("t"), nullptr);
  EXPECT_EQ(m.package.tensor("t")->file, 1U);
  EXPECT_EQ(m.package.tensor("s")->file, 0U);
  EXPECT_EQ(m.package.tensor("v"), nullptr);
  EXPECT_EQ(m.package.tensor(""), nullptr);
  m = merge({{"s", 0}, {"s", 1}}, R"({"weight_map":{}})");
  EXPECT_EQ(m.codes, "tensor-duplicate:s index-tensor-unlisted:s");
}

TEST(MemorySource, ReadsAndRefuses) {
  MemorySource source;
  EXPECT_EQ(source.add("hello"), 0U);
  EXPECT_EQ(source.add("world!"), 1U);
  EXPECT_EQ(source.size(1), 6U);
  std::string a(2, ' ');
  std::string b(6, ' ');
  const ReadRequest good[] = {{1, 0, std::as_writable_bytes(std::span(b))}, {0, 3, std::as_writable_bytes(std::span(a))}};
  ASSERT_TRUE(source.read(good).ok());
  EXPECT_EQ(a + b, "loworld!");
  const ReadRequest bad[] = {{0, 4, std::as_writable_bytes(std::span(a))}};
  EXPECT_FALSE(source.read(bad).ok());
  const ReadRequest far[] = {{0, ~0ULL, std::as_writable_bytes(std::span(a))}};
  EXPECT_FALSE(source.read(far).ok());
  const ReadRequest none[] = {{9, 0, std::as_writable_bytes(std::span(a))}};
  EXPECT_FALSE(source.read(none).ok());
}

}  // namespace
}  // namespace qb
