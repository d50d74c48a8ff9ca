// One row per number format: its names and its width. codec.h says what its codes mean.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace qb {

enum class Elem : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  e4m3,
  e5m2,
  e8m0,
  e2m1,
  e2m3,
  e3m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  c64,
  int2,
  int3,
  int4,
  int5,
  int6,
  int7,  // codes only: never a container dtype
};

struct ElemInfo {
  Elem elem;
  std::string_view name;         // in the scheme grammar and in messages: fp8, bf16, fp4, ...
  std::string_view safetensors;  // dtype in a safetensors header; empty: not a container
  uint8_t bits;
  bool is_float;
};

std::span<const ElemInfo> elem_table();
const ElemInfo& info(Elem);
inline int bits(Elem e) {
  return info(e).bits;
}
// Two's complement integers of two to eight bits: what weights and activations may be quantized to.
inline bool is_integer_code(Elem e) {
  return e == Elem::i8 || (e >= Elem::int2 && e <= Elem::int7);
}
std::optional<Elem> elem_from_safetensors(std::string_view dtype);
std::optional<Elem> elem_from_name(std::string_view name);

}  // namespace qb
