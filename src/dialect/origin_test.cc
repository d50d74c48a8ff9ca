#include "dialect/origin.h"

#include <gtest/gtest.h>

namespace qb {
namespace {

TEST(Origin, EntriesComeBack) {
  OriginEntry e;
  e.dtype = Elem::bf16;
  e.shape = std::vector<int64_t>{1, 2, 3};
  e.bits = std::string("\x00\x01\x80\xff", 4);
  e.absent = true;
  const std::string text = to_text(e);
  EXPECT_LE(text.size(), 128u);
  const OriginEntry back = parse_origin_entry(text);
  EXPECT_EQ(back.dtype, e.dtype);
  EXPECT_EQ(back.shape, e.shape);
  EXPECT_EQ(back.bits, e.bits);
  EXPECT_TRUE(back.absent);
  const OriginEntry scalar = parse_origin_entry(to_text({.dtype = {}, .shape = std::vector<int64_t>{}, .bits = {}, .absent = false}));
  ASSERT_TRUE(scalar.shape);
  EXPECT_TRUE(scalar.shape->empty());
}

TEST(Origin, HostileEntriesAreLeftOut) {
  for (const char* text : {"", ";", "=", "dtype=", "dtype=NOPE", "shape=x", "shape=-1", "shape=1,,2", "shape=99999999999999999999", "bits=0", "bits=zz",
                           "bits=00112233445566778899aabbccddeeff0011", "absent=yes", "what=ever", "shape=1,1,1,1,1,1,1,1,1"})
    EXPECT_TRUE(parse_origin_entry(text).empty()) << text;
  EXPECT_TRUE(parse_origin_entry(std::string(200, 'a')).empty());
}

TEST(Origin, MetadataHoldsOnlyTheFilesTensors) {
  Origin o{.dialect = "modelopt", .tensors = {{"a", "shape="}, {"b", "dtype=BF16"}}, .document = {{"label", "fp8_pb_real"}}};
  Package p;
  p.files.push_back({"model.safetensors", 0, {{std::string(origin_key), origin_metadata(o, {"b", "c"})}}});
  const Origin back = read_origin(p);
  EXPECT_EQ(back.dialect, "modelopt");
  EXPECT_EQ(back.tensors.size(), 1u);
  EXPECT_EQ(back.tensors.at("b"), "dtype=BF16");
  EXPECT_EQ(back.document.at("label"), "fp8_pb_real");
  for (const char* bad : {"", "[", "[]", "{\"tensors\": 3}", "{\"dialect\": 1, \"tensors\": {\"a\": 2}}"}) {
    p.files[0].metadata[0].second = bad;
    EXPECT_TRUE(read_origin(p).tensors.empty()) << bad;
  }
}

}  // namespace
}  // namespace qb
