#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

namespace qb {
namespace {

std::span<const std::byte> bytes_of(std::string_view s) {
  return std::as_bytes(std::span(s));
}

// Everything that went wrong with a header in a file that has `data` bytes behind it; empty: accepted.
std::string codes(std::string_view header, uint64_t data) {
  Diagnostics diag;
  SafetensorsHeader out;
  const bool ok = parse_safetensors_header(bytes_of(header), 8 + header.size() + data, "f.safetensors", 3, out, diag);
  EXPECT_EQ(ok, diag.ok());
  std::string all;
  for (const Problem& p : diag.all()) {
    EXPECT_EQ(p.file, "f.safetensors");
    EXPECT_FALSE(p.found.empty());
    EXPECT_FALSE(p.expected.empty());
    all += (all.empty() ? "" : " ") + p.code;
  }
  return all;
}

std::string tensor(std::string_view dtype, std::string_view shape, std::string_view offsets, std::string_view name = "a") {
  return "\"" + std::string(name) + "\":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":" + std::string(shape) +
         ",\"data_offsets\":" + std::string(offsets) + "}";
}
std::string header(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return "{" + tensor(dtype, shape, offsets) + "}";
}

// The verdicts of the reference implementation, safetensors 0.8.0, on the same bytes; where this one is stricter, it says so.
TEST(SafetensorsHeader, AcceptsWhatTheReferenceAccepts) {
  const std::string t = tensor("F32", "[1]", "[0,4]");
  EXPECT_EQ(codes("{}", 0), "");
  EXPECT_EQ(codes("{" + t + "}", 4), "");
  EXPECT_EQ(codes("{" + t + "}   ", 4), "");
  EXPECT_EQ(codes("{" + t + "}\n\t", 4), "");
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":{"a":"b"}})", 4), "");
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":null})", 4), "");
  EXPECT_EQ(codes(R"({"a":{"dtype":"F32","x":[1,{"y":[2,"z"]}],"shape":[1],"data_offsets":[0,4],"w":null}})", 4), "");
  EXPECT_EQ(codes(R"({"a":{"dtype":"F32","x":99999999999999999999999,"shape":[1],"data_offsets":[0,4]}})", 4), "");
  EXPECT_EQ(codes(header("F32", "[0]", "[0,0]"), 0), "");
  EXPECT_EQ(codes("{" + t + "," + tensor("F32", "[0]", "[4,4]", "z") + "}", 4), "");
  EXPECT_EQ(codes("{" + t + "," + tensor("F32", "[0]", "[0,0]", "z") + "," + tensor("F32", "[2,0]", "[0,0]", "y") + "}", 4), "");
  EXPECT_EQ(codes(header("F32", "[0,9223372036854775807,4]", "[0,0]"), 0), "");
  EXPECT_EQ(codes(header("F4", "[4]", "[0,2]"), 2), "");
  EXPECT_EQ(codes(header("F6_E2M3", "[4]", "[0,3]"), 3), "");
  EXPECT_EQ(codes(header("F6_E3M2", "[4]", "[0,3]"), 3), "");
  EXPECT_EQ(codes(header("U8", "[]", "[0,1]"), 1), "");
  EXPECT_EQ(codes("{" + tensor("U8", "[1]", "[0,1]", "") + "}", 1), "");
  EXPECT_EQ(codes("{" + tensor("U8", "[1]", "[0,1]", "\\u0000") + "}", 1), "");
  for (const ElemInfo& e : elem_table()) {
    if (e.safetensors.empty()) continue;
    EXPECT_EQ(codes(header(e.safetensors, "[8]", "[0," + std::to_string(e.bits) + "]"), e.bits), "") << e.safetensors;
  }
}

TEST(SafetensorsHeader, RefusesWhatTheReferenceRefuses) {
  const std::string t = tensor("F32", "[1]", "[0,4]");
  const std::string invalid = "header-invalid-json";
  EXPECT_EQ(codes("{" + t + "}" + std::string(1, '\0'), 4), invalid);
  EXPECT_EQ(codes("\xEF\xBB\xBF{" + t + "}", 4), invalid);
  EXPECT_EQ(codes("", 0), invalid);
  EXPECT_EQ(codes("[]", 0), invalid);
  EXPECT_EQ(codes("{}{}", 0), invalid);
  EXPECT_EQ(codes("{" + t + ",}", 4), invalid);
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":{"a":1}})", 4), invalid);
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":{"a":{}}})", 4), invalid);
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":{"a":null}})", 4), invalid);
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":[]})", 4), invalid);
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":{},"__metadata__":{}})", 4), "header-duplicate-key");
  for (const char* field : {R"("shape":[1],"data_offsets":[0,4])", R"("dtype":"F32","data_offsets":[0,4])", R"("dtype":"F32","shape":[1])", ""}) {
    EXPECT_EQ(codes(std::string("{\"a\":{") + field + "}}", 4), invalid) << field;
  }
  EXPECT_EQ(codes(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4), "header-duplicate-key");
  for (const char* value : {"null", "1", "\"x\"", "true", "[]", "{}", "-1", "1.5"}) EXPECT_EQ(codes(std::string("{\"a\":") + value + "}", 0), invalid) << value;
  for (const char* shape : {"[1.0]", "[-1]", "[-0]", "[\"1\"]", "null", "[[1]]", "[{}]", "[1e0]", "[18446744073709551616]", "1", "{}", "[true]", "[null]"}) {
    EXPECT_EQ(codes(header("F32", shape, "[0,4]"), 4), invalid) << shape;
  }
  for (const char* offsets : {"[4]", "[]", "[0,4,4]", "[0,4.0]", "[-0,4]", "[0,null]", "null", "4", "{}", "[[0,4]]"}) {
    EXPECT_EQ(codes(header("F32", "[1]", offsets), 4), invalid) << offsets;
  }
  EXPECT_EQ(codes(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", 4), invalid);
  EXPECT_EQ(codes(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1e999}})", 4), invalid);
  EXPECT_EQ(codes("{" + tensor("U8", "[1]", "[0,1]", "\\ud800") + "}", 1), invalid);
  EXPECT_EQ(codes(header("F32", "[1]", "[4,0]"), 4), "tensor-size-mismatch file-trailing-bytes");
  EXPECT_EQ(codes(header("F4", "[3]", "[0,2]"), 2), "tensor-size-mismatch");
  EXPECT_EQ(codes(header("F4", "[3]", "[0,1]"), 1), "tensor-size-mismatch");
  EXPECT_EQ(codes(header("F6_E3M2", "[2]", "[0,2]"), 2), "tensor-size-mismatch");
  EXPECT_EQ(codes(header("F32", "[9223372036854775808,4,0]", "[0,0]"), 0), "tensor-shape-overflow");
  EXPECT_EQ(codes(header("F32", "[4611686018427387904,2,0]", "[0,0]"), 0), "tensor-shape-overflow");
  EXPECT_EQ(codes(header("F32", "[4294967296,4294967296]", "[0,0]"), 0), "tensor-shape-overflow");
  EXPECT_EQ(codes(header("F64", "[2305843009213693952]", "[0,0]"), 0), "tensor-shape-overflow") << "2^61 * 64 bits";
  EXPECT_EQ(codes(header("F32", "[1]", "[4,8]"), 8), "tensor-hole");
  EXPECT_EQ(codes("{" + t + "}", 5), "file-trailing-bytes");
  EXPECT_EQ(codes("{" + t + "}", 3), "file-truncated");
  EXPECT_EQ(codes("{" + t + "," + tensor("F32", "[0]", "[2,2]", "z") + "}", 4), "tensor-overlap");
  EXPECT_EQ(codes("{" + t + "," + tensor("F32", "[0]", "[9,9]", "z") + "}", 4), "tensor-hole file-truncated");
  EXPECT_EQ(codes("{" + tensor("U8", "[1]", "[0,1]") + "," + tensor("U8", "[1]", "[1,2]", "\\u0061") + "}", 2), "header-duplicate-key");
  EXPECT_EQ(codes(header("u8", "[1]", "[0,1]"), 1), "dtype-unknown");
  EXPECT_EQ(codes(header("", "[1]", "[0,1]"), 1), "dtype-unknown");
  EXPECT_EQ(codes(header("int4", "[1]", "[0,1]"), 1), "dtype-unknown");
  EXPECT_EQ(codes(header("F32", "[1]", "[18446744073709551612,18446744073709551615]"), 4), "tensor-size-mismatch tensor-hole file-truncated");
}

TEST(SafetensorsHeader, IsStricterThanTheReference) {
  const std::string t = tensor("F32", "[1]", "[0,4]");
  EXPECT_EQ(codes(" {" + t + "}", 4), "header-invalid-json") << "the format wants '{' first";
  EXPECT_EQ(codes("{" + t + R"(,"__metadata__":{"a":"1","a":"2"}})", 4), "header-duplicate-key");
  EXPECT_EQ(codes("{" + t + "," + t + "}", 4), "header-duplicate-key tensor-overlap");
  EXPECT_EQ(codes(R"({"a":["F32",[1],[0,4]]})", 4), "header-invalid-json");
  EXPECT_EQ(codes(header("F32", "[9223372036854775808,0]", "[0,0]"), 0), "tensor-shape-overflow");
  EXPECT_EQ(codes(header("F8_E4M3FNUZ", "[1]", "[0,1]"), 1), "dtype-unknown");
}

TEST(SafetensorsHeader, NamesTheTensorAndWhatWasFound) {
  Diagnostics diag;
  SafetensorsHeader out;
  const std::string text = "{" + tensor("F8_E3M4", "[2]", "[0,2]", "odd") + "," + tensor("BF16", "[2]", "[2,6]", "good") + "}";
  EXPECT_FALSE(parse_safetensors_header(bytes_of(text), 8 + text.size() + 6, "f", 0, out, diag));
  ASSERT_EQ(diag.all().size(), 1U);
  EXPECT_EQ(diag.all()[0].tensor, "odd");
  EXPECT_EQ(diag.all()[0].found, "F8_E3M4");
  ASSERT_EQ(out.tensors.size(), 1U) << "what is sound is handed over";
  EXPECT_EQ(out.tensors[0].name, "good");
  EXPECT_EQ(out.tensors[0].offset, 8 + text.size() + 2);
}

TEST(SafetensorsHeader, BoundsWhatItReports) {
  std::string text = "{";
  for (int i = 0; i < 1000; ++i) text += tensor("X", "[2]", "[0,2]", "t" + std::to_string(i)) + (i == 999 ? "}" : ",");
  Diagnostics diag;
  SafetensorsHeader out;
  EXPECT_FALSE(parse_safetensors_header(bytes_of(text), 8 + text.size() + 2, "f", 0, out, diag));
  EXPECT_EQ(diag.all().size(), 64U);
  EXPECT_NE(diag.all()[31].found.find("968 more"), std::string::npos) << diag.all()[31].found;
  EXPECT_NE(diag.all()[63].found.find("967 more"), std::string::npos) << diag.all()[63].found;
}

TEST(SafetensorsHeader, DeepNestingInIgnoredKeys) {
  EXPECT_EQ(codes("{\"a\":{\"x\":" + std::string(100'000, '['), 0), "header-invalid-json");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"x\":";
  EXPECT_EQ(codes("{\"a\":{\"x\":" + objects, 0), "header-invalid-json");
}

TEST(HeaderLength, IsCheckedWithoutOverflow) {
  const auto code = [](std::vector<uint8_t> first, uint64_t size) {
    Diagnostics diag;
    uint64_t length = 99;
    const bool ok = parse_header_length(std::as_bytes(std::span(first)), size, "f", length, diag);
    return ok ? std::to_string(length) : diag.all()[0].code;
  };
  EXPECT_EQ(code({2, 0, 0, 0, 0, 0, 0, 0}, 10), "2");
  EXPECT_EQ(code({2, 0, 0, 0, 0, 0, 0, 0}, 9), "header-beyond-file");
  EXPECT_EQ(code({0, 0, 0, 0, 0, 0, 0, 0}, 8), "0");
  EXPECT_EQ(code({0, 0, 0}, 3), "file-truncated");
  EXPECT_EQ(code({}, 0), "file-truncated");
  EXPECT_EQ(code({0x00, 0xE1, 0xF5, 0x05, 0, 0, 0, 0}, 1ULL << 40), "100000000");
  EXPECT_EQ(code({0x01, 0xE1, 0xF5, 0x05, 0, 0, 0, 0}, 1ULL << 40), "header-too-large");
  EXPECT_EQ(code({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F}, 100), "header-too-large");
  EXPECT_EQ(code({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, ~0ULL), "header-too-large");
}

std::vector<TensorInfo> some_tensors() {
  return {{.name = "a.weight", .dtype = Elem::e4m3, .shape = {4, 8}, .bytes = 32},
          {.name = "a.\"quoted\"\n", .dtype = Elem::f32, .shape = {}, .bytes = 4},
          {.name = "empty", .dtype = Elem::bf16, .shape = {0, 7}, .bytes = 0},
          {.name = "größe", .dtype = Elem::e2m1, .shape = {6}, .bytes = 3}};
}

TEST(WriteHeader, ReadsBackAsWritten) {
  const auto tensors = some_tensors();
  const Metadata metadata{{"format", "pt"}, {"quantbridge.checksums", "{\"a\":\"0\"}"}};
  for (const Metadata& m : {metadata, Metadata{}}) {
    const std::string text = write_safetensors_header(tensors, m);
    EXPECT_EQ(text.size() % 8, 0U);
    EXPECT_EQ(text[8], '{');
    const uint64_t size = text.size() + 39;
    Diagnostics diag;
    uint64_t length = 0;
    ASSERT_TRUE(parse_header_length(bytes_of(text).first(8), size, "f", length, diag));
    EXPECT_EQ(length, text.size() - 8);
    SafetensorsHeader out;
    ASSERT_TRUE(parse_safetensors_header(bytes_of(text).subspan(8), size, "f", 7, out, diag)) << diag.all()[0].found;
    EXPECT_EQ(out.metadata, m);
    EXPECT_EQ(out.data_begin, text.size());
    ASSERT_EQ(out.tensors.size(), tensors.size());
    uint64_t begin = text.size();
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_EQ(out.tensors[i].name, tensors[i].name);
      EXPECT_EQ(out.tensors[i].dtype, tensors[i].dtype);
      EXPECT_EQ(out.tensors[i].shape, tensors[i].shape);
      EXPECT_EQ(out.tensors[i].offset, begin);
      EXPECT_EQ(out.tensors[i].bytes, tensors[i].bytes);
      EXPECT_EQ(out.tensors[i].file, 7U);
      begin += tensors[i].bytes;
    }
  }
  EXPECT_EQ(write_safetensors_header({}, {}).substr(8), "{}      ");
}

TEST(SafetensorsHeader, EveryPrefixIsRefused) {
  std::string text = write_safetensors_header(some_tensors(), {{"k", "v"}}).substr(8);
  while (text.ends_with(' ')) text.pop_back();
  for (size_t n = 0; n < text.size(); ++n) EXPECT_NE(codes(text.substr(0, n), 39), "") << n;
}

TEST(SafetensorsHeader, RandomBytesNeverCrash) {
  const std::string text = write_safetensors_header(some_tensors(), {{"k", "v"}}).substr(8);
  std::mt19937 random(1);
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string mutant = text;
    for (unsigned k = 0; k < 1 + random() % 3; ++k) mutant[random() % mutant.size()] = static_cast<char>(random());
    Diagnostics diag;
    SafetensorsHeader out;
    const uint64_t size = 8 + mutant.size() + 39;
    if (!parse_safetensors_header(bytes_of(mutant), size, "f", 0, out, diag)) {
      EXPECT_FALSE(diag.ok());
      continue;
    }
    ++accepted;  // a byte of a name, mostly
    uint64_t at = out.data_begin;
    for (const TensorInfo& t : out.tensors) {
      EXPECT_EQ(t.offset, at);
      EXPECT_EQ(t.bytes * 8, static_cast<uint64_t>(t.elements()) * static_cast<uint64_t>(bits(t.dtype)));
      at += t.bytes;
    }
    EXPECT_EQ(at, size);
  }
  EXPECT_GT(accepted, 100);
}

TEST(SafetensorsHeader, ManyTensors) {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 150'000; ++i) {
    tensors.push_back({.name = "model.layers." + std::to_string(i / 800) + ".mlp.experts." + std::to_string(i) + ".down_proj.weight_scale_inv",
                       .dtype = Elem::f32,
                       .shape = {1, 1},
                       .bytes = 4});
  }
  const std::string text = write_safetensors_header(tensors, {});
  const auto begin = std::chrono::steady_clock::now();
  Diagnostics diag;
  SafetensorsHeader out;
  ASSERT_TRUE(parse_safetensors_header(bytes_of(text).subspan(8), text.size() + 600'000, "f", 0, out, diag));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(out.tensors.size(), 150'000U);
  EXPECT_LT(seconds.count(), 20.0);  // quadratic would be minutes; RecordProperty tells the real time
  RecordProperty("milliseconds", static_cast<int>(seconds.count() * 1e3));
}

}  // namespace
}  // namespace qb
