#include "num/elem.h"

#include <gtest/gtest.h>

#include <set>

namespace qb {
namespace {

TEST(Elem, EveryRowIsFoundByBothNames) {
  std::set<std::string_view> names, dtypes;
  for (const ElemInfo& row : elem_table()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_EQ(elem_from_name(row.name), row.elem);
    EXPECT_EQ(&info(row.elem), &row);
    if (row.safetensors.empty()) continue;
    EXPECT_TRUE(dtypes.insert(row.safetensors).second) << row.safetensors;
    EXPECT_EQ(elem_from_safetensors(row.safetensors), row.elem);
  }
  EXPECT_EQ(dtypes.size(), 20U);
}

TEST(Elem, AliasesAndWidths) {
  EXPECT_EQ(elem_from_name("e4m3"), Elem::e4m3);
  EXPECT_EQ(elem_from_name("fp8"), Elem::e4m3);
  EXPECT_EQ(elem_from_name("e2m1"), Elem::e2m1);
  EXPECT_EQ(elem_from_name("i8"), Elem::i8);
  EXPECT_EQ(elem_from_name("int8"), Elem::i8);
  EXPECT_EQ(bits(Elem::e2m1), 4);
  EXPECT_EQ(bits(Elem::e2m3), 6);
  EXPECT_EQ(bits(Elem::e3m2), 6);
  EXPECT_EQ(bits(Elem::boolean), 8);
  EXPECT_EQ(bits(Elem::c64), 64);
  EXPECT_EQ(bits(Elem::int5), 5);
}

TEST(Elem, UnknownNamesAreNotFound) {
  for (const std::string_view s : {"", "FP8", "fp", "bf16 ", "int1", "f8_e4m3"}) EXPECT_FALSE(elem_from_name(s).has_value()) << s;
  for (const std::string_view s : {"", "bf16", "F8_E4M3FN", "I4", "F4 "}) EXPECT_FALSE(elem_from_safetensors(s).has_value()) << s;
}

}  // namespace
}  // namespace qb
