// SmoothQuant: the large columns of activations are made smaller and those of the weights larger, so that both can be quantized.
//
// Source: Xiao et al., arXiv 2211.10438, as two producers compute it.
//   llm-compressor 0.14: x^a / w^(1-a), at least 1e-5, a = 0.5, with x the range of a column's inputs and w twice the largest of its weights; x where w is 0.
//   Only
//     of inputs that are a norm's, which takes the factors up, and not of what experts share. `smoothquant_80` has a = 0.8, as its examples for W8A8 say.
//   ModelOpt 0.47: x alone, the largest magnitude of a column's inputs (a = 1), from 1e-4 to 1e4, 1 where there are none; stored beside each weight.
#include <algorithm>
#include <cmath>

#include "calib/algorithm.h"

namespace qb::calib {
namespace {

using Floats = std::vector<float>;

void add_largest(const Weight& w, Floats& most) {
  Floats row(static_cast<size_t>(w.k));
  for (int64_t r = 0; r < w.n; ++r) {
    widen(w.numbers.data() + static_cast<size_t>(r * w.k * bits(w.elem) / 8), w.elem, w.k, row.data());
    for (size_t j = 0; j < row.size(); ++j) most[j] = std::max(most[j], std::fabs(row[j]));
  }
}

Result<Floats> checked(Floats factors) {
  if (std::all_of(factors.begin(), factors.end(), [](float f) { return std::isfinite(f) && f > 0; })) return factors;
  return Error{Errc::bad_input, "what flows into it is not finite"};
}

template <int percent>
Result<Floats> smooth(std::span<const Weight> weights, Statistics& inputs, const Tools&) {
  constexpr float strength = percent / 100.0F, least = 1e-5F;
  Floats sizes(static_cast<size_t>(inputs.width())), factors(sizes.size());
  for (const Weight& w : weights) add_largest(w, sizes);
  for (size_t j = 0; j < factors.size(); ++j) {
    const float range = inputs.most()[j] - inputs.least()[j], size = 2 * sizes[j];
    factors[j] = std::max(size > 0 ? std::pow(range, strength) / std::pow(size, 1 - strength) : range, least);
  }
  return checked(std::move(factors));
}

Result<Floats> by_inputs(std::span<const Weight>, Statistics& inputs, const Tools&) {
  constexpr float nothing = 0x1p-31F;
  Floats factors(static_cast<size_t>(inputs.width()));
  for (size_t j = 0; j < factors.size(); ++j) {
    const float most = std::max(std::fabs(inputs.most()[j]), std::fabs(inputs.least()[j]));
    factors[j] = most <= nothing ? 1.0F : 1 / std::clamp(1 / most, 1e-4F, 1e4F);
  }
  return checked(std::move(factors));
}

std::string_view refuses(const ir::QuantType& t) noexcept {
  return bits(t.code) == 8 ? "" : "weights of eight bits";
}

constexpr Algorithm compressor(std::string_view name, Result<Floats> (*balances)(std::span<const Weight>, Statistics&, const Tools&)) {
  return {.name = name,
          .source = "arXiv 2211.10438; llm-compressor 0.14, SmoothQuantModifier",
          .numerics = recipe::Numerics::llm_compressor,
          .kind = Algorithm::Kind::factors,
          .products = false,
          .refuses = refuses,
          .balance = balances,
          .taken_by = TakenBy::feeders,
          .mixtures = false,
          .linears = false};
}

}  // namespace

QB_ALGORITHM(smoothquant_llm_compressor) = compressor("smoothquant", smooth<50>);
QB_ALGORITHM(smoothquant_80_llm_compressor) = compressor("smoothquant_80", smooth<80>);
QB_ALGORITHM(smoothquant_modelopt) = {.name = "smoothquant",
                                      .source = "arXiv 2211.10438; nvidia-modelopt 0.47, smoothquant",
                                      .numerics = recipe::Numerics::modelopt,
                                      .kind = Algorithm::Kind::factors,
                                      .products = false,
                                      .refuses = refuses,
                                      .balance = by_inputs,
                                      .taken_by = TakenBy::nobody};

}  // namespace qb::calib
