// The loop that all NVFP4 recipes share: E2M1 codes, an E4M3 scale for a group of columns, a float32 scale for the tensor.
//
// Goals: what differs between producers is a class of numbers: the second level from the amax, the scale of a block, what its weights are divided by.
// Non-goals: choosing a producer. Sources of truth: nvfp4.cc and nvfp4_search.cc.
#pragma once

#include "recipe/loops.h"
#include "recipe/recipe.h"

namespace qb::recipe {

inline constexpr int64_t nvfp4_tile = 1024;  // elements worked on at a time, so that the steps between the passes stay in the first-level cache

// The second level for which no amax divides by zero.
QB_INLINE float global_of(float amax, float divisor) {
  const float g = amax / divisor;
  return g > 0 ? g : 6.0F / divisor;
}

QB_INLINE uint32_t magnitude_of(float x) {
  return std::bit_cast<uint32_t>(x) & f32_abs_mask;
}

// ModelOpt: global = amax / Divisor multiplies, 2688 = 6 * 448; everything in binary32.
template <class S, int Divisor>
struct ModelOpt {
  float global;
  QB_INLINE explicit ModelOpt(float amax) : global(global_of(amax, Divisor)) {}
  QB_INLINE uint32_t scale_code(float amax) const { return clamped(amax / (6.0F * global)); }
  QB_INLINE float divisor(float scale) const { return scale * global; }
  // A block without a scale gets 1; at least 2^-9, at most 448.
  static QB_INLINE uint32_t clamped(float scale) {
    uint32_t bits = std::bit_cast<uint32_t>(scale);
    bits = bits == 0 ? 0x3F800000U : bits;
    return e4m3_code<true>(max_of(bits, 0x3B000000U));
  }
};

// Numbers(amax) has `global`, divisor(scale), and scale_code(amax of the block), or scale_code(block, count, amax of it) where its weights are asked.
template <class S, class Numbers, int64_t Group>
struct Nvfp4 {
  static QB_INLINE void run(const Args* args) {
    const Args& a = *args;
    const Numbers numbers(a.amax);
    if (a.global != nullptr) store(a.global, 0, numbers.global);
    const int64_t groups = (a.k + Group - 1) / Group;
    const int64_t packed = (a.k + 1) / 2;
    for (int64_t row = 0; row < a.rows; ++row) {
      const std::byte* weights = static_cast<const std::byte*>(a.weights) + row * a.k * static_cast<int64_t>(sizeof(typename S::Bits));
      for (int64_t col = 0; col < a.k; col += nvfp4_tile) {
        const int64_t count = a.k - col < nvfp4_tile ? a.k - col : nvfp4_tile;
        run_tile(a.isa, weights + col * static_cast<int64_t>(sizeof(typename S::Bits)), count, numbers, a.scales + row * groups + col / Group,
                 a.codes + row * packed + col / 2);
      }
    }
  }

 private:
  static QB_INLINE uint8_t code_of(float quotient) {
    return static_cast<uint8_t>(round_magnitude<1, 1>(magnitude_of(quotient), 6.0F) | (quotient < 0 ? 8U : 0U));
  }

  static QB_INLINE void run_tile(Isa isa, const std::byte* __restrict weights, int64_t count, const Numbers& numbers, std::byte* __restrict scales,
                                 std::byte* __restrict codes) {
    constexpr int64_t size = sizeof(typename S::Bits), most_groups = nvfp4_tile / Group;
    float amax[most_groups], each_divisor[most_groups], each_inverse[most_groups];
    uint32_t scale[most_groups];
    float divisor[nvfp4_tile], inverse[nvfp4_tile];  // of every element: one long loop, because g++ 12 makes code half as fast of a loop of 16
    alignas(64) uint8_t code[nvfp4_tile + 2];
    const int64_t whole = count / Group, rest = count % Group, groups = whole + (rest != 0 ? 1 : 0);
    for (int64_t g = 0; g < whole; ++g) amax[g] = S::value(max_magnitude<S>(weights + g * Group * size, Group, 0));
    if (rest != 0) amax[whole] = S::value(max_magnitude<S>(weights + whole * Group * size, rest, 0));
    for (int64_t g = 0; g < groups; ++g) {
      if constexpr (requires { numbers.scale_code(amax[g]); }) {
        scale[g] = numbers.scale_code(amax[g]);
      } else {
        scale[g] = numbers.scale_code(weights + g * Group * size, g < whole ? Group : rest, amax[g]);
      }
    }
    uint32_t least = f32_inf_bits, most = 0, largest = 0;
    for (int64_t g = 0; g < groups; ++g) {
      scales[g] = static_cast<std::byte>(scale[g]);
      each_divisor[g] = numbers.divisor(e4m3_value(scale[g]));
      each_inverse[g] = 1 / each_divisor[g];
      largest = max_of(largest, std::bit_cast<uint32_t>(amax[g]));
      least = min_of(least, std::bit_cast<uint32_t>(each_divisor[g]));
      most = max_of(most, std::bit_cast<uint32_t>(each_divisor[g]));
    }
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t i = 0; i < Group; ++i) divisor[g * Group + i] = each_divisor[g];
      for (int64_t i = 0; i < Group; ++i) inverse[g * Group + i] = each_inverse[g];
    }
    if (std::bit_cast<float>(largest) <= 0x1p60F && divides_exactly<S>(isa, std::bit_cast<float>(least), std::bit_cast<float>(most))) {
      for (int64_t i = 0; i < count; ++i) code[i] = code_of(quotient(S::value(load<S>(weights, i)), divisor[i], inverse[i]));
    } else {
      for (int64_t i = 0; i < count; ++i) code[i] = code_of(S::value(load<S>(weights, i)) / divisor[i]);
    }
    code[count] = 0;  // the upper half of the last byte where count is odd
    for (int64_t i = 0; i < (count + 1) / 2; ++i) {
      uint16_t pair;
      std::memcpy(&pair, code + 2 * i, sizeof pair);
      codes[i] = static_cast<std::byte>(pair | (pair >> 4));
    }
  }
};

template <template <class> class Numbers, int64_t Group>
void run_nvfp4(const Args& a) noexcept {
  if (a.source == Elem::bf16) return run_at<Nvfp4<Bf16, Numbers<Bf16>, Group>>(a.isa, &a);
  if (a.source == Elem::f16) return run_at<Nvfp4<F16, Numbers<F16>, Group>>(a.isa, &a);
  run_at<Nvfp4<F32, Numbers<F32>, Group>>(a.isa, &a);
}

inline bool is_nvfp4(const ir::QuantType& t, int32_t group) noexcept {
  return t.code == Elem::e2m1 && t.scale == ir::ScaleValues::e4m3 && t.zero == ir::Zero::none && t.block == ir::Block{1, group};
}
inline bool makes_nvfp4(const ir::QuantType& t) noexcept {
  return is_nvfp4(t, 16);
}
inline Elem scale_e4m3(Elem) noexcept {
  return Elem::e4m3;
}

}  // namespace qb::recipe
