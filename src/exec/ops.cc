#include "exec/ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "exec/numbers.h"
#include "num/minifloat.h"

namespace qb::ops {
namespace {

float from_bf16(uint16_t b) {
  return std::bit_cast<float>(uint32_t{b} << 16);
}

template <class Read>
void recode_from(Read read, std::byte* dst, Elem to, int64_t count) {
  if (to == Elem::f32) {
    for (int64_t i = 0; i < count; ++i) store<float>(dst, i, read(i));
  } else if (to == Elem::bf16) {
    for (int64_t i = 0; i < count; ++i) store<uint16_t>(dst, i, bf16_code(read(i)));
  } else {
    for (int64_t i = 0; i < count; ++i) store<uint16_t>(dst, i, encode_f16(read(i)));
  }
}

// One product, rounded once. A code has at most 8 significant bits and a two-level type's scale at most 4, so every product of the three is exact in double;
// a quotient's numerator and denominator together have too few bits (28 + 24) to come closer to a float32 midpoint than a double tells apart.
struct Product {
  bool divide_scale, divide_global;
  double global;
  float operator()(float code, float scale) const {
    double over = code, under = 1;
    (divide_scale ? under : over) *= scale;
    (divide_global ? under : over) *= global;
    return static_cast<float>(over / under);
  }
};

unsigned nibble(const std::byte* row, int64_t j) {
  return (std::to_integer<unsigned>(row[j / 2]) >> (4 * (j % 2))) & 15U;
}

// One run of codes under one scale: float32 arithmetic where there is no global scale (a product or quotient of two float32 is rounded once as it is).
void run_of_bytes(const Table& values, const std::byte* codes, float scale, const Product& product, bool has_global, std::byte* out, int64_t count) {
  if (has_global) {
    for (int64_t j = 0; j < count; ++j) store<float>(out, j, product(values[load<uint8_t>(codes, j)], scale));
  } else if (product.divide_scale) {
    for (int64_t j = 0; j < count; ++j) store<float>(out, j, values[load<uint8_t>(codes, j)] / scale);
  } else {
    for (int64_t j = 0; j < count; ++j) store<float>(out, j, values[load<uint8_t>(codes, j)] * scale);
  }
}

using Nibbles = std::array<float, 16>;

void run_of_nibbles(const Nibbles& products, const std::byte* row, int64_t first, int64_t count, std::byte* out) {
  int64_t j = first;
  const int64_t end = first + count;
  if (j % 2 != 0 && j < end) store<float>(out, j, products[nibble(row, j)]), ++j;
  for (; j + 1 < end; j += 2) {
    const unsigned both = std::to_integer<unsigned>(row[j / 2]);
    store<float>(out, j, products[both & 15U]);
    store<float>(out, j + 1, products[both >> 4]);
  }
  if (j < end) store<float>(out, j, products[nibble(row, j)]);
}

Nibbles products_of(float scale, const Product& product) {
  Nibbles t{};
  for (size_t c = 0; c < t.size(); ++c) t[c] = product(decode_e2m1(static_cast<uint8_t>(c)), scale);
  return t;
}

}  // namespace

void recode(const std::byte* src, Elem from, std::byte* dst, Elem to, int64_t count) {
  if (from == to) {
    std::memcpy(dst, src, static_cast<size_t>(count * bits(from) / 8));
    return;
  }
  switch (from) {
    case Elem::f32:
      return recode_from([src](int64_t i) { return load<float>(src, i); }, dst, to, count);
    case Elem::bf16:
      return recode_from([src](int64_t i) { return from_bf16(load<uint16_t>(src, i)); }, dst, to, count);
    case Elem::f16:
      return recode_from([src](int64_t i) { return decode_f16(load<uint16_t>(src, i)); }, dst, to, count);
    default:
      return recode_from([src, &t = table_of(from)](int64_t i) { return t[load<uint8_t>(src, i)]; }, dst, to, count);
  }
}

void to_doubles(const std::byte* src, Elem from, std::span<double> to) {
  const auto each = [&](auto read) {
    for (size_t i = 0; i < to.size(); ++i) to[i] = static_cast<double>(read(static_cast<int64_t>(i)));
  };
  if (from == Elem::f64)
    each([src](int64_t i) { return load<double>(src, i); });
  else if (from == Elem::bf16)
    each([src](int64_t i) { return from_bf16(load<uint16_t>(src, i)); });
  else
    each([src, from](int64_t i) { return number_at(src, from, i); });
}

void rescale(const std::byte* src, Elem elem, std::byte* dst, int64_t count) {
  // The quotient of two numbers of 8 or 11 bits, rounded to 24 bits first, rounds to the same 8 or 11 bits (24 >= 2*11 + 2).
  recode_from([src, elem](int64_t i) { return 1.0F / number_at(src, elem, i); }, dst, elem, count);
}

namespace {

// (code - zero) * scale, or divided by it: both are float32 numbers, so that one operation rounds once. A column's group is its place, or what the order says.
Result<void> dequantize_integers(const DequantizeArgs& a) {
  const ir::Block block = a.op.type.block;
  const int64_t group = block.cols == 0 ? a.cols : block.cols, groups = block.cols == 0 ? 1 : a.cols / group + (a.cols % group != 0 ? 1 : 0);
  std::vector<int32_t> order;
  for (int64_t j = 0; a.order != nullptr && j < a.cols; ++j) {
    int32_t g = load<int32_t>(a.order, j);
    if (g == -1) g = static_cast<int32_t>(j / group);
    if (g < 0 || g >= groups) return Error{Errc::bad_input, fmt::format("the order of the groups names group {} for column {}, there are {}", g, j, groups)};
    order.push_back(g);
  }
  const bool divide = a.op.scale_form == ir::ScaleForm::divide;
  const auto real = [divide](int number, float scale) { return divide ? static_cast<float>(number) / scale : static_cast<float>(number) * scale; };
  for (int64_t i = 0; i < a.rows; ++i) {
    const std::byte* row = a.code + i * a.cols;
    std::byte* out = a.out + i * a.cols * 4;
    const int64_t first = (block.rows == 0 ? 0 : (a.first_row + i) / block.rows - a.first_row / block.rows) * groups;
    const auto zero_of = [&](int64_t g) { return a.zero == nullptr ? 0 : int{load<int8_t>(a.zero, first + g)}; };
    if (a.order != nullptr) {
      for (int64_t j = 0; j < a.cols; ++j) {
        const int32_t g = order[static_cast<size_t>(j)];
        store<float>(out, j, real(load<int8_t>(row, j) - zero_of(g), number_at(a.scale, a.scale_elem, first + g)));
      }
      continue;
    }
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = number_at(a.scale, a.scale_elem, first + g);
      const int zero = zero_of(g);
      for (int64_t j = g * group; j < std::min((g + 1) * group, a.cols); ++j) store<float>(out, j, real(load<int8_t>(row, j) - zero, scale));
    }
  }
  return {};
}

}  // namespace

Result<void> dequantize(const DequantizeArgs& a) {
  if (is_integer_code(a.op.type.code)) return dequantize_integers(a);
  const ir::Block block = a.op.type.block;
  const int64_t group = block.cols == 0 ? a.cols : block.cols, groups = block.cols == 0 ? 1 : a.cols / group + (a.cols % group != 0 ? 1 : 0);
  const bool has_global = a.global != nullptr;
  const Product product{a.op.scale_form == ir::ScaleForm::divide, a.op.global_form == ir::ScaleForm::divide,
                        has_global ? static_cast<double>(number_at(a.global, a.global_elem, 0)) : 1.0};
  const bool packed = a.op.type.code == Elem::e2m1;
  const bool small_scales = bits(a.scale_elem) == 8;
  // All products of a four-bit code and an eight-bit scale: 16 KiB, once for each block of rows.
  std::array<Nibbles, 256> all;
  if (packed && small_scales) {
    for (size_t s = 0; s < all.size(); ++s) all[s] = products_of(table_of(a.scale_elem)[s], product);
  }
  const Table& values = table_of(packed ? Elem::i8 : a.op.type.code);
  const int64_t code_bytes = a.cols * bits(a.op.type.code) / 8;
  for (int64_t i = 0; i < a.rows; ++i) {
    const std::byte* row = a.code + i * code_bytes;
    std::byte* out = a.out + i * a.cols * 4;
    const int64_t scale_row = block.rows == 0 ? 0 : (a.first_row + i) / block.rows - a.first_row / block.rows;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * group, count = std::min(group, a.cols - first), s = scale_row * groups + g;
      if (packed && small_scales) {
        run_of_nibbles(all[load<uint8_t>(a.scale, s)], row, first, count, out);
      } else if (packed) {
        run_of_nibbles(products_of(number_at(a.scale, a.scale_elem, s), product), row, first, count, out);
      } else {
        run_of_bytes(values, row + first, number_at(a.scale, a.scale_elem, s), product, has_global, out + first * 4, count);
      }
    }
  }
  return {};
}

void fold(const FoldArgs& f) {
  std::vector<double> sum(static_cast<size_t>(f.cols));
  for (int64_t i = 0; i < f.rows; ++i) {
    for (int64_t j = 0; j < f.cols; ++j) sum[static_cast<size_t>(j)] = static_cast<double>(f.src[i * f.cols + j]);
    for (int64_t r = 0; r < f.rank; ++r) {
      const auto b = static_cast<double>(f.b[i * f.rank + r]);
      for (int64_t j = 0; j < f.cols; ++j) sum[static_cast<size_t>(j)] += b * static_cast<double>(f.a[r * f.cols + j]);
    }
    for (int64_t j = 0; j < f.cols; ++j)
      f.out[i * f.cols + j] = static_cast<float>(sum[static_cast<size_t>(j)] * (f.prescale == nullptr ? 1.0 : static_cast<double>(f.prescale[j])));
  }
}

void pair_rows(const std::byte* codes, int64_t rows, int64_t cols, std::byte* bytes) {
  const auto nibble = [](const std::byte* row, int64_t j) { return row[j / 2] >> (j % 2 * 4) & std::byte{15}; };
  for (int64_t i = 0; i + 1 < rows; i += 2) {
    const std::byte *low = codes + i * cols / 2, *high = low + cols / 2;
    for (int64_t j = 0; j < cols; ++j) *bytes++ = nibble(low, j) | nibble(high, j) << 4;
  }
}

void pack_nibbles(const std::byte* codes, int64_t rows, int64_t cols, ir::Nibbles order, std::byte* bytes) {
  if (order == ir::Nibbles::high_first) {
    for (int64_t i = 0; i < rows * cols / 2; ++i) {
      const unsigned high = std::to_integer<unsigned>(codes[2 * i]) + 8, low = std::to_integer<unsigned>(codes[2 * i + 1]) + 8;
      bytes[i] = static_cast<std::byte>((high & 15U) << 4 | (low & 15U));
    }
    return;
  }
  for (int64_t i = 0; i + 1 < rows; i += 2) {
    const std::byte *low = codes + i * cols, *high = low + cols;
    for (int64_t j = 0; j < cols; ++j) *bytes++ = (low[j] & std::byte{15}) | (high[j] << 4);
  }
}

namespace {

// In squares, so that both sides stay in the first-level cache.
template <class T>
void turn_as(const std::byte* src, int64_t rows, int64_t cols, std::byte* dst) {
  constexpr int64_t side = 32;
  for (int64_t top = 0; top < rows; top += side)
    for (int64_t left = 0; left < cols; left += side)
      for (int64_t j = left; j < std::min(left + side, cols); ++j)
        for (int64_t i = top; i < std::min(top + side, rows); ++i) store<T>(dst, j * rows + i, load<T>(src, i * cols + j));
}

}  // namespace

void turn(const std::byte* src, int64_t rows, int64_t cols, int bytes, std::byte* dst) {
  if (bytes == 1) return turn_as<uint8_t>(src, rows, cols, dst);
  bytes == 2 ? turn_as<uint16_t>(src, rows, cols, dst) : turn_as<uint32_t>(src, rows, cols, dst);
}

}  // namespace qb::ops
