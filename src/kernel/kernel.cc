#include "kernel/kernel.h"

#include <fmt/format.h>

namespace qb::kernel {

std::string to_string(const Problem& p) {
  constexpr std::string_view inputs[] = {"as the scheme says", "bf16", "f32"};
  return fmt::format("{} x {} x {} (tokens, outputs, inputs), {}, activations {}", p.m, p.n, p.k, ir::to_string(p.scheme),
                     inputs[static_cast<size_t>(p.inputs)]);
}

}  // namespace qb::kernel
