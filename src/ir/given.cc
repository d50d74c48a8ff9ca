#include "ir/given.h"

#include <cstring>

#include "num/codec.h"

namespace qb::ir {

Stored given(Role role, Elem container, ScaleForm form, double value) {
  return {.role = role, .container = container, .elem = container, .view = row_major(1, 1, bits(container)), .form = form, .value = value};
}

bool is_given(const Stored& s) {
  return s.bytes == 0 && s.value.has_value();
}

std::string given_bytes(const Stored& s) {
  std::string out(static_cast<size_t>(bits(s.container)) / 8, '\0');
  const auto put = [&out](auto number) { std::memcpy(out.data(), &number, sizeof number); };
  const auto number = static_cast<float>(*s.value);
  if (s.container == Elem::f32) put(number);
  if (s.container == Elem::bf16) put(encode_bf16(number));
  if (s.container == Elem::f16) put(encode_f16(number));
  if (s.container == Elem::i8) put(static_cast<int8_t>(*s.value));
  return out;
}

}  // namespace qb::ir
