#include "num/elem.h"

#include <array>

namespace qb {
namespace {

constexpr std::array table = {
    ElemInfo{Elem::f64, "f64", "F64", 64, true},         ElemInfo{Elem::f32, "f32", "F32", 32, true},     ElemInfo{Elem::f16, "f16", "F16", 16, true},
    ElemInfo{Elem::bf16, "bf16", "BF16", 16, true},      ElemInfo{Elem::e4m3, "fp8", "F8_E4M3", 8, true}, ElemInfo{Elem::e5m2, "fp8e5m2", "F8_E5M2", 8, true},
    ElemInfo{Elem::e8m0, "e8m0", "F8_E8M0", 8, true},    ElemInfo{Elem::e2m1, "fp4", "F4", 4, true},      ElemInfo{Elem::e2m3, "fp6e2m3", "F6_E2M3", 6, true},
    ElemInfo{Elem::e3m2, "fp6e3m2", "F6_E3M2", 6, true}, ElemInfo{Elem::i64, "i64", "I64", 64, false},    ElemInfo{Elem::i32, "i32", "I32", 32, false},
    ElemInfo{Elem::i16, "i16", "I16", 16, false},        ElemInfo{Elem::i8, "int8", "I8", 8, false},      ElemInfo{Elem::u64, "u64", "U64", 64, false},
    ElemInfo{Elem::u32, "u32", "U32", 32, false},        ElemInfo{Elem::u16, "u16", "U16", 16, false},    ElemInfo{Elem::u8, "u8", "U8", 8, false},
    ElemInfo{Elem::boolean, "bool", "BOOL", 8, false},   ElemInfo{Elem::c64, "c64", "C64", 64, true},     ElemInfo{Elem::int2, "int2", "", 2, false},
    ElemInfo{Elem::int3, "int3", "", 3, false},          ElemInfo{Elem::int4, "int4", "", 4, false},      ElemInfo{Elem::int5, "int5", "", 5, false},
    ElemInfo{Elem::int6, "int6", "", 6, false},          ElemInfo{Elem::int7, "int7", "", 7, false},
};

// Second names that the grammar accepts and never prints.
struct Alias {
  std::string_view name;
  Elem elem;
};
constexpr std::array aliases = {Alias{"e4m3", Elem::e4m3}, Alias{"e2m1", Elem::e2m1}, Alias{"i8", Elem::i8}};

constexpr bool rows_stand_in_enum_order() {
  for (size_t i = 0; i < table.size(); ++i) {
    if (static_cast<size_t>(table[i].elem) != i) return false;
  }
  return table.size() == static_cast<size_t>(Elem::int7) + 1;
}
static_assert(rows_stand_in_enum_order(), "info() indexes the table by the enumerator");

}  // namespace

std::span<const ElemInfo> elem_table() {
  return table;
}

const ElemInfo& info(Elem e) {
  return table[static_cast<size_t>(e)];
}

std::optional<Elem> elem_from_safetensors(std::string_view dtype) {
  if (dtype.empty()) return std::nullopt;
  for (const ElemInfo& row : table) {
    if (row.safetensors == dtype) return row.elem;
  }
  return std::nullopt;
}

std::optional<Elem> elem_from_name(std::string_view name) {
  for (const ElemInfo& row : table) {
    if (row.name == name) return row.elem;
  }
  for (const Alias& alias : aliases) {
    if (alias.name == name) return alias.elem;
  }
  return std::nullopt;
}

}  // namespace qb
