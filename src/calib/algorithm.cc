#include "calib/algorithm.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/diagnostics.h"
#include "ir/shorthand.h"
#include "pass/quant_config.h"

namespace qb::calib {

Made make(const Weight& w, const std::byte* numbers, float amax, Isa isa) {
  const auto blocks = [](int64_t count, int32_t block) { return block == 0 ? int64_t{1} : (count + block - 1) / block; };
  const auto count = static_cast<size_t>(blocks(w.n, w.type.block.rows) * blocks(w.k, w.type.block.cols));
  const int64_t row = is_integer_code(w.type.code) ? w.k : (w.k * bits(w.type.code) + 7) / 8;
  Made out;
  out.codes.resize(static_cast<size_t>(w.n * row));
  out.scales.resize(count * static_cast<size_t>(bits(w.recipe->scale_elem(w.elem)) / 8));
  if (w.type.zero != ir::Zero::none) out.zeros.resize(count);
  w.recipe->run({.weights = numbers,
                 .source = w.elem,
                 .rows = w.n,
                 .k = w.k,
                 .n = w.n,
                 .amax = amax,
                 .type = w.type,
                 .codes = out.codes.data(),
                 .scales = out.scales.data(),
                 .global = reinterpret_cast<std::byte*>(&out.global),
                 .isa = isa,
                 .zeros = out.zeros.empty() ? nullptr : out.zeros.data()});
  return out;
}

Result<std::vector<const Algorithm*>> parse_algorithms(std::string_view text, recipe::Numerics numerics) {
  std::vector<const Algorithm*> out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('+', begin), text.size());
    const std::string_view name = text.substr(begin, end - begin);
    const Algorithm* found = nullptr;
    std::vector<std::string_view> known;
    for (const pass::RotationWord& w : pass::rotation_words) known.push_back(w.name);
    for (const Algorithm* a : algorithms()) {
      if (a->numerics && *a->numerics != numerics) continue;
      known.push_back(a->name);
      if (a->name == name) found = a;
    }
    if (pass::find_rotation(name) != nullptr)
      return Error{Errc::invalid_argument, fmt::format("'{0}': {1} is about the whole model and stands once, in front: {1}+gptq", escape(text), name)};
    if (found == nullptr)
      return Error{Errc::invalid_argument, fmt::format("unknown algorithm '{}'; near names: {}", escape(name), ir::near_names(name, known))};
    if (!out.empty() && (out.size() == 2 || out.front()->kind != Algorithm::Kind::factors || found->kind != Algorithm::Kind::codes))
      return Error{Errc::invalid_argument,
                   fmt::format("'{}': two algorithms go together where the first finds factors and the second codes: smoothquant+gptq", escape(text))};
    out.push_back(found);
    begin = end + 1;
  }
  return out;
}

}  // namespace qb::calib
