// AWQ's clip: the largest weights are clamped where finer steps for the others are worth more to the outputs.
//
// Source: awq_clip of ModelOpt 0.47, after Lin et al., arXiv 2306.00978. Parts of the largest magnitude from 0.5 to 1 in steps of a twentieth are tried, and
// the one with the least error wins: for integers each group of columns of a row by itself, with the error of that group's part of the output; for two-level
// types the largest magnitude of the tensor, with the error of all outputs, and the largest of modules that are fused is what all of them get. Behind factors
// (awq+awq_clip, ModelOpt's awq_full) inputs and weights are the scaled ones. Deviations: the error is that of all tokens, where the producer takes 64 of a
// sample; of equal errors the largest part wins, where there the smallest does, so that what has no inputs is not clamped.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "calib/output_error.h"
#include "calib/rounding.h"

namespace qb::calib {
namespace {

using Floats = std::vector<float>;

constexpr std::array parts{1.0F, 0.95F, 0.9F, 0.85F, 0.8F, 0.75F, 0.7F, 0.65F, 0.6F, 0.55F, 0.5F};
constexpr int64_t rows_together = 8;

// The groups of a weight of integers, a few rows at a time. Every one gets the scale that is best for it.
class Groups {
 public:
  Groups(const Weight& w, const Floats& products, Made& made, Isa isa)
      : w_(w),
        products_(products),
        made_(made),
        isa_(isa),
        elem_(w.recipe->scale_elem(w.elem)),
        width_(w.type.block.cols == 0 ? w.k : w.type.block.cols),
        per_row_((w.k + width_ - 1) / width_),
        low_(-static_cast<float>(1 << (bits(w.type.code) - 1))) {}

  void clip(int64_t begin, int64_t end) {
    Floats row(static_cast<size_t>(w_.k)), lost(static_cast<size_t>(width_));
    std::vector<std::byte> codes(lost.size()), best(lost.size());
    for (int64_t r = begin; r < end; ++r) {
      widen(w_.numbers.data() + static_cast<size_t>(r * w_.k * bits(w_.elem) / 8), w_.elem, w_.k, row.data());
      for (int64_t g = 0; g < per_row_; ++g) {
        const int64_t first = g * width_, count = std::min(width_, w_.k - first);
        const auto at = static_cast<size_t>(r * per_row_ + g), wide = static_cast<size_t>(bits(elem_) / 8);
        std::byte* const stored = made_.scales.data() + at * wide;
        const float zero = made_.zeros.empty() ? 0.0F : static_cast<float>(static_cast<int8_t>(made_.zeros[at]));
        float whole = 0, chosen = 0;
        widen(stored, elem_, 1, &whole);
        double least = 0;
        for (const float part : parts) {
          float scale = whole * part;
          std::byte rounded[sizeof(float)];
          narrow(&scale, 1, elem_, rounded);
          widen(rounded, elem_, 1, &scale);
          for (int64_t j = 0; j < count; ++j) {
            const auto [code, value] = nearest(row[static_cast<size_t>(first + j)], scale, zero, low_, elem_);
            codes[static_cast<size_t>(j)] = static_cast<std::byte>(code);
            lost[static_cast<size_t>(j)] = value - row[static_cast<size_t>(first + j)];
          }
          const double error = squares(lost.data(), count, products_.data() + first * w_.k + first, w_.k, 1, count, isa_);
          if (part < 1 && !(error < least)) continue;
          least = error;
          chosen = scale;
          best.swap(codes);
        }
        if (chosen == whole) continue;  // the recipe's own codes
        narrow(&chosen, 1, elem_, stored);
        std::copy_n(best.begin(), count, made_.codes.begin() + static_cast<std::ptrdiff_t>(r * w_.k + first));
      }
    }
  }

 private:
  const Weight& w_;
  const Floats& products_;
  Made& made_;
  Isa isa_;
  Elem elem_;
  int64_t width_, per_row_;
  float low_;
};

Result<float> clipped_amax(const Weight& w, const Floats& products, const Tools& tools) {
  const Floats ones(static_cast<size_t>(w.k), 1.0F);
  OutputError error(w, products, tools);
  double least = 0;
  float best = 0;
  for (const float part : parts) {
    const double e = error.of(ones, ones, part);
    if (!std::isfinite(e)) return Error{Errc::bad_input, "what flows into it, or what its outputs lose, is not finite"};
    if (part < 1 && !(e < least)) continue;
    least = e;
    best = part;
  }
  return best * recipe::absmax(w.numbers.data(), w.elem, w.n * w.k, tools.isa);
}

Result<std::vector<Made>> solve(std::span<const Weight> weights, Statistics& inputs, const Tools& tools) {
  const Floats products = doubled_products(inputs);
  float shared = 0;
  std::vector<float> own;
  for (const Weight& w : weights) {
    own.push_back(0);
    if (!w.type.two_level()) continue;
    QB_ASSIGN(own.back(), clipped_amax(w, products, tools));
    if (w.recipe->share == recipe::Share::fused) shared = std::max(shared, own.back());
  }
  std::vector<Made> out;
  for (const Weight& w : weights) {
    const float amax = w.recipe->share == recipe::Share::fused ? shared : own[out.size()];
    Made made = make(w, w.numbers.data(), amax, tools.isa);
    if (!w.type.two_level()) {
      Groups groups(w, products, made, tools.isa);
      tools.pool.ranges(w.n, rows_together, [&](int64_t begin, int64_t end) { groups.clip(begin, end); });
    }
    out.push_back(std::move(made));
  }
  return out;
}

std::string_view refuses(const ir::QuantType& t) noexcept {
  const bool integers = is_integer_code(t.code) && t.scale == ir::ScaleValues::any && t.block.rows == 1;
  return integers || (t.two_level() && t.code == Elem::e2m1) ? "" : "integers with a scale for each row or group, or NVFP4";
}

}  // namespace

QB_ALGORITHM(awq_clip) = {.name = "awq_clip",
                          .source = "arXiv 2306.00978; nvidia-modelopt 0.47, awq_clip",
                          .numerics = std::nullopt,
                          .kind = Algorithm::Kind::codes,
                          .products = true,
                          .refuses = refuses,
                          .solve = solve};

}  // namespace qb::calib
