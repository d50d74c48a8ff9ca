// NVFP4: E2M1 codes, an E4M3 scale for 16 (ModelOpt also 32) columns, a float32 scale for the tensor.
//
// Sources: ModelOpt 0.47 and llm-compressor 0.14 with compressed-tensors 0.19, both with PyTorch 2.14 on the CPU; their output is compared byte for byte in the
// tests. The sign of a code is set where the quotient is below zero, so -0 gives code 0 and a small negative number gives 8.
// One deviation: an all-zero tensor under ModelOpt, where the producer divides 0 by 0, takes 6 for its amax, as the producer does for activations.
#include "recipe/loops.h"
#include "recipe/recipe.h"

namespace qb::recipe {
namespace {

constexpr int64_t tile = 1024;  // elements worked on at a time, so that the steps between the passes stay in the first-level cache

// ModelOpt: global = amax / (6 * 448) multiplies; everything in binary32.
struct ModelOpt {
  template <class S>
  static QB_INLINE float global(float amax) {
    const float g = amax / 2688.0F;
    return g > 0 ? g : 6.0F / 2688.0F;
  }
  template <class S>
  static QB_INLINE uint32_t scale_code(float amax, float global) {
    const float scale = amax / (6.0F * global);
    uint32_t bits = std::bit_cast<uint32_t>(scale);
    bits = bits == 0 ? 0x3F800000U : bits;              // a block of zeros gets 1
    return e4m3_code<true>(max_of(bits, 0x3B000000U));  // at least 2^-9
  }
  static QB_INLINE float divisor(float scale, float global) { return scale * global; }
};

// llm-compressor: global = 2688 * (1 / amax), each step rounded to the source dtype, divides.
struct Compressed {
  template <class S>
  static QB_INLINE float global(float amax) {
    const float bounded = amax < S::tiny ? S::tiny : amax;
    const float g = round_scale<S>(2688.0F * round_scale<S>(1.0F / bounded));
    return std::bit_cast<uint32_t>(g) < f32_inf_bits ? g : 1.0F;
  }
  template <class S>
  static QB_INLINE uint32_t scale_code(float amax, float global) {
    const float local = round_scale<S>(amax / 6.0F);
    const uint32_t code = e4m3_code<true>(std::bit_cast<uint32_t>(global * local));
    return code == 0 ? 0x20U : code;  // 0.125
  }
  static QB_INLINE float divisor(float scale, float global) { return scale / global; }
};

template <class S, class Numbers, int64_t Group>
struct Nvfp4 {
  static QB_INLINE void run(const Args* args) {
    const Args& a = *args;
    const float global = Numbers::template global<S>(a.amax);
    if (a.global != nullptr) store(a.global, 0, global);
    const int64_t groups = (a.k + Group - 1) / Group;
    const int64_t packed = (a.k + 1) / 2;
    for (int64_t row = 0; row < a.rows; ++row) {
      const std::byte* weights = static_cast<const std::byte*>(a.weights) + row * a.k * static_cast<int64_t>(sizeof(typename S::Bits));
      for (int64_t col = 0; col < a.k; col += tile) {
        const int64_t count = a.k - col < tile ? a.k - col : tile;
        run_tile(weights + col * static_cast<int64_t>(sizeof(typename S::Bits)), count, global, a.scales + row * groups + col / Group,
                 a.codes + row * packed + col / 2);
      }
    }
  }

 private:
  static QB_INLINE void run_tile(const std::byte* __restrict weights, int64_t count, float global, std::byte* __restrict scales, std::byte* __restrict codes) {
    constexpr int64_t size = sizeof(typename S::Bits);
    float amax[tile / Group];
    float divisor[tile];  // of every element: one long loop, because g++ 12 makes code half as fast of a loop of 16
    alignas(64) uint8_t code[tile + 2];
    const int64_t whole = count / Group;
    const int64_t rest = count % Group;
    for (int64_t g = 0; g < whole; ++g) amax[g] = S::value(max_magnitude<S>(weights + g * Group * size, Group, 0));
    if (rest != 0) amax[whole] = S::value(max_magnitude<S>(weights + whole * Group * size, rest, 0));
    for (int64_t g = 0; g * Group < count; ++g) {
      const uint32_t scale = Numbers::template scale_code<S>(amax[g], global);
      scales[g] = static_cast<std::byte>(scale);
      amax[g] = Numbers::divisor(e4m3_value(scale), global);
    }
    for (int64_t g = 0; g * Group < count; ++g) {
      for (int64_t i = 0; i < Group; ++i) divisor[g * Group + i] = amax[g];
    }
    for (int64_t i = 0; i < count; ++i) {
      const float quotient = S::value(load<S>(weights, i)) / divisor[i];
      const uint32_t magnitude = round_magnitude<1, 1>(std::bit_cast<uint32_t>(quotient) & f32_abs_mask, 6.0F);
      code[i] = static_cast<uint8_t>(magnitude | (quotient < 0 ? 8U : 0U));
    }
    code[count] = 0;  // the upper half of the last byte where count is odd
    for (int64_t i = 0; i < (count + 1) / 2; ++i) {
      uint16_t pair;
      std::memcpy(&pair, code + 2 * i, sizeof pair);
      codes[i] = static_cast<std::byte>(pair | (pair >> 4));
    }
  }
};

template <class Numbers, int64_t Group>
void run_group(const Args& a) noexcept {
  if (a.source == Elem::bf16) return run_at<Nvfp4<Bf16, Numbers, Group>>(a.isa, &a);
  if (a.source == Elem::f16) return run_at<Nvfp4<F16, Numbers, Group>>(a.isa, &a);
  run_at<Nvfp4<F32, Numbers, Group>>(a.isa, &a);
}

void run_modelopt(const Args& a) noexcept {
  a.type.block.cols == 32 ? run_group<ModelOpt, 32>(a) : run_group<ModelOpt, 16>(a);
}
void run_compressed(const Args& a) noexcept {
  run_group<Compressed, 16>(a);
}

bool nvfp4(const ir::QuantType& t, int32_t group) {
  return t.code == Elem::e2m1 && t.scale == ir::ScaleValues::e4m3 && t.zero == ir::Zero::none && t.block == ir::Block{1, group};
}
bool makes_modelopt(const ir::QuantType& t) noexcept {
  return nvfp4(t, 16) || nvfp4(t, 32);
}
bool makes_compressed(const ir::QuantType& t) noexcept {
  return nvfp4(t, 16);
}
Elem scale_e4m3(Elem) noexcept {
  return Elem::e4m3;
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
                             run_modelopt};
QB_RECIPE(nvfp4_llm_compressor) = {"nvfp4.llm_compressor",
                                   "llm-compressor 0.14, compressed-tensors 0.19, PyTorch on the CPU",
                                   Numerics::llm_compressor,
                                   makes_compressed,
                                   true,
                                   Share::fused,
                                   scale_e4m3,
                                   true,
                                   1,
                                   run_compressed};

}  // namespace qb::recipe
