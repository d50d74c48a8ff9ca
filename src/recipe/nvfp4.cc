// NVFP4: E2M1 codes, an E4M3 scale for 16 (ModelOpt also 32) columns, a float32 scale for the tensor.
//
// Sources: ModelOpt 0.47 and llm-compressor 0.14 with compressed-tensors 0.19, both with PyTorch 2.14 on the CPU; their output is compared byte for byte in the
// tests. The sign of a code is set where the quotient is below zero, so -0 gives code 0 and a small negative number gives 8.
// W4A8_NVFP4_FP8 leaves the room of E4M3 to the numbers that kernels dequantize to, in place of the block scales: nvfp4_fp8_stage.
// One deviation: an all-zero tensor under ModelOpt, where the producer divides 0 by 0, takes 6 for its amax, as the producer does for activations.
#include "recipe/nvfp4_body.h"

namespace qb::recipe {
namespace {

// llm-compressor: global = 2688 * (1 / amax), each step rounded to the source dtype, divides.
template <class S>
struct Compressed {
  float global;
  QB_INLINE explicit Compressed(float amax) {
    const float bounded = amax < S::tiny ? S::tiny : amax;
    const float g = round_scale<S>(2688.0F * round_scale<S>(1.0F / bounded));
    global = std::bit_cast<uint32_t>(g) < f32_inf_bits ? g : 1.0F;
  }
  QB_INLINE uint32_t scale_code(float amax) const {
    const float local = round_scale<S>(amax / 6.0F);
    const uint32_t code = e4m3_code<true>(std::bit_cast<uint32_t>(global * local));
    return code == 0 ? 0x20U : code;  // 0.125
  }
  QB_INLINE float divisor(float scale) const { return scale / global; }
};

template <class S>
using Largest = ModelOpt<S, 2688>;
template <class S>
using Staged = ModelOpt<S, 448>;

template <template <class> class Numbers>
void run_modelopt(const Args& a) noexcept {
  a.type.block.cols == 32 ? run_nvfp4<Numbers, 32>(a) : run_nvfp4<Numbers, 16>(a);
}
bool makes_modelopt(const ir::QuantType& t) noexcept {
  return is_nvfp4(t, 16) || is_nvfp4(t, 32);
}

}  // namespace

QB_RECIPE(nvfp4_modelopt) = {"nvfp4.modelopt",
                             "nvidia-modelopt 0.47, export_hf_checkpoint, PyTorch on the CPU",
                             Numerics::modelopt,
                             makes_modelopt,
                             true,
                             Share::fused,
                             scale_e4m3,
                             false,
                             1,
                             run_modelopt<Largest>};
QB_RECIPE(nvfp4_fp8_stage_modelopt) = {"nvfp4_fp8_stage.modelopt",
                                       "nvidia-modelopt 0.47, export_hf_checkpoint with W4A8_NVFP4_FP8_CFG, PyTorch on the CPU",
                                       Numerics::modelopt,
                                       makes_modelopt,
                                       true,
                                       Share::fused,
                                       scale_e4m3,
                                       false,
                                       1,
                                       run_modelopt<Staged>};
QB_RECIPE(nvfp4_llm_compressor) = {"nvfp4.llm_compressor",
                                   "llm-compressor 0.14, compressed-tensors 0.19, PyTorch on the CPU",
                                   Numerics::llm_compressor,
                                   makes_nvfp4,
                                   true,
                                   Share::fused,
                                   scale_e4m3,
                                   true,
                                   1,
                                   run_nvfp4<Compressed, 16>};

}  // namespace qb::recipe
