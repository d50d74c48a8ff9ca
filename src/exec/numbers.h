// Loads and stores of single numbers at any address, and tables of the eight-bit formats.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "num/codec.h"
#include "num/elem.h"

namespace qb::ops {

template <class T>
T load(const std::byte* p, int64_t i) {
  T value;
  std::memcpy(&value, p + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}
template <class T>
void store(std::byte* p, int64_t i, T value) {
  std::memcpy(p + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

using Table = std::array<float, 256>;

// The values of an eight-bit format (e4m3, e5m2, e8m0; u8 counts as e8m0) or of i8.
inline const Table& table_of(Elem elem) {
  constexpr auto make = [](auto decode) {
    Table t{};
    for (size_t c = 0; c < t.size(); ++c) t[c] = decode(static_cast<uint8_t>(c));
    return t;
  };
  static const Table e4m3 = make(decode_e4m3), e5m2 = make(decode_e5m2), e8m0 = make(decode_e8m0);
  static const Table i8 = make([](uint8_t c) { return static_cast<float>(static_cast<int8_t>(c)); });
  switch (elem) {
    case Elem::e4m3:
      return e4m3;
    case Elem::e5m2:
      return e5m2;
    case Elem::i8:
      return i8;
    default:
      return e8m0;
  }
}

// The number `i` of an array of `elem`: f32, f16, bf16 or an eight-bit format.
inline float number_at(const std::byte* p, Elem elem, int64_t i) {
  switch (elem) {
    case Elem::f32:
      return load<float>(p, i);
    case Elem::bf16:
      return decode_bf16(load<uint16_t>(p, i));
    case Elem::f16:
      return decode_f16(load<uint16_t>(p, i));
    default:
      return table_of(elem)[load<uint8_t>(p, i)];
  }
}

}  // namespace qb::ops
