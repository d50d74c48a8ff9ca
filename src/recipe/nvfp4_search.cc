// NVFP4 whose block scales are searched: ModelOpt takes the one at which the squared error of the block is least.
//
// Source: ModelOpt 0.47 (the calibration "mse"), with PyTorch 2.14 on the CPU; exported checkpoints are compared byte for byte in the tests.
//   nvfp4_mse            all 126 positive E4M3 numbers are tried (NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP)
//   nvfp4_four_over_six  the block's amax and 1.5 times it, so that it is stored as 6 or as 4, with a second level of amax / (6 * 256) (NVFP4_FOUR_OVER_SIX)
// The search works with scales of its own rounding, (amax of the block / 6) / (amax / 6 / 448) to E4M3 and times the second again. PyTorch adds the sixteen
// errors in eight lanes, and those in order; of equal sums the first wins. Modules that are fused share an amax before the search.
// One deviation: nvfp4.cc's for all-zero tensors.
#include "recipe/nvfp4_body.h"

namespace qb::recipe {
namespace {

constexpr int64_t group = 16;
constexpr uint32_t positive_scales = 126;

// The magnitudes of a block; short blocks end in zeros, which have no error.
template <class S>
struct Block {
  float x[group];
  QB_INLINE Block(const std::byte* weights, int64_t count) {
    if (count == group) {
      for (int64_t i = 0; i < group; ++i) x[i] = std::bit_cast<float>(magnitude_of(S::value(load<S>(weights, i))));
    } else {
      for (int64_t i = 0; i < group; ++i) x[i] = i < count ? std::bit_cast<float>(magnitude_of(S::value(load<S>(weights, i)))) : 0.0F;
    }
  }
  QB_INLINE float error(float scale) const {
    float squares[group];
    const float divisor = scale == 0 ? 1.0F : scale, factor = scale == 0 ? 0.0F : scale;
    for (int64_t i = 0; i < group; ++i) {
      const float code = magnitude_value<1, 1>(round_magnitude<1, 1>(magnitude_of(x[i] / divisor), 6.0F));
      const float off = x[i] - code * factor;
      squares[i] = off * off;
    }
    float sum = 0;
    for (int64_t i = 0; i < group / 2; ++i) sum += squares[i] + squares[i + group / 2];
    return sum;
  }
};

// `Most` is the largest block scale of the tensor in units of the second level.
template <class S, int Most>
struct Searched : ModelOpt<S, 6 * Most> {
  using Base = ModelOpt<S, 6 * Most>;
  float of_tensor, top, unit;  // its amax, a sixth of it, and that by Most
  QB_INLINE explicit Searched(float tensor) : Base(tensor) {
    of_tensor = tensor / (6.0F * static_cast<float>(Most)) > 0 ? tensor : 6.0F;
    top = of_tensor / 6.0F;
    unit = top / static_cast<float>(Most);
  }
  // The scale that the search tries for a block with this amax.
  QB_INLINE uint32_t code_tried(float block) const { return e4m3_code<true>(magnitude_of(block / 6.0F / unit)); }
  QB_INLINE float tried(float block) const { return e4m3_value(code_tried(block)) * unit; }
  // The scale that is stored for it.
  QB_INLINE uint32_t stored(float block) const {
    const float scale = block / 6.0F;
    return Base::clamped((scale == 0 ? 1.0F : scale) * static_cast<float>(Most) / top);
  }
};

template <class S>
struct FourOverSix : Searched<S, 256> {
  using Searched<S, 256>::Searched;
  QB_INLINE uint32_t scale_code(const std::byte* weights, int64_t count, float amax) const {
    const Block<S> block(weights, count);
    const float four = amax * 1.5F;
    return this->stored(block.error(this->tried(four)) < block.error(this->tried(amax)) ? four : amax);
  }
};

template <class S>
struct Sweep : Searched<S, 448> {
  float blocks[positive_scales], scales[positive_scales];
  QB_INLINE explicit Sweep(float tensor) : Searched<S, 448>(tensor) {
    for (uint32_t i = 0; i < positive_scales; ++i) {
      blocks[i] = this->of_tensor * (e4m3_value(i + 1) / 448.0F);
      scales[i] = this->tried(blocks[i]);
    }
  }
  // Scales at which the largest weight alone, clamped, has more error than the block has at its usual scale are not tried, nor are those after the first one
  // at which everything is rounded to zero: neither can win.
  QB_INLINE uint32_t scale_code(const std::byte* weights, int64_t count, float amax) const {
    const Block<S> block(weights, count);
    const uint32_t usual = this->code_tried(amax);
    const float enough = block.error(scales[usual == 0 ? 0 : usual > positive_scales ? positive_scales - 1 : usual - 1]);
    float least = std::bit_cast<float>(f32_inf_bits);
    uint32_t best = 0;
    for (uint32_t i = 0; i < positive_scales; ++i) {
      const float clamped = amax - 6.0F * scales[i];
      if (clamped > 0 && clamped * clamped > enough) continue;
      const float error = block.error(scales[i]);
      best = error < least ? i : best;
      least = error < least ? error : least;
      if (amax <= 0.25F * scales[i]) break;
    }
    return this->stored(blocks[best]);
  }
};

constexpr std::string_view source = "nvidia-modelopt 0.47, the calibration mse and export_hf_checkpoint, PyTorch on the CPU";

}  // namespace

QB_RECIPE(nvfp4_four_over_six_modelopt) = {"nvfp4_four_over_six.modelopt", source, Numerics::modelopt, makes_nvfp4, true, Share::fused, scale_e4m3, false, 1,
                                           run_nvfp4<FourOverSix, group>};
QB_RECIPE(nvfp4_mse_modelopt) = {"nvfp4_mse.modelopt",   source, Numerics::modelopt, makes_nvfp4, true, Share::fused, scale_e4m3, false, 1,
                                 run_nvfp4<Sweep, group>};

}  // namespace qb::recipe
