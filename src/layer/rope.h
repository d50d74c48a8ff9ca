// Rotary position embedding: frequencies with every scaling that the families use, tables of cosines and sines, the rotation.
//
// Source of truth: modeling_rope_utils.py of transformers 5.17 (default, linear, dynamic, llama3, yarn, longrope), read from `rope_parameters` or from
// `rope_theta` with `rope_scaling`. Frequencies are float32, as there. partial_rotary_factor makes a head's first part turn and leaves the rest. Non-goals:
// mrope, an error that names it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace qb::layer {

class Rope {
 public:
  // `layers` chooses where the parameters differ between kinds of layers: full_attention, sliding_attention.
  static Result<Rope> make(const Json& config, int64_t head_dim, std::string_view layers = {});

  // Pairs of numbers that turn.
  int64_t half() const { return static_cast<int64_t>(short_.size()); }
  // What cosines and sines are multiplied with.
  float attention_scaling() const { return scaling_; }
  // How many times max_position_embeddings the positions reach: the factor of the types that are written to go beyond it (linear, dynamic).
  double reach() const { return reach_; }
  // The frequency of the pair `i` in a sequence of `length` tokens; only dynamic and longrope depend on the length.
  float frequency(int64_t i, int64_t length) const;
  // cos, sin: [positions, half], for tokens of one sequence whose length (the prompt's, or with the newest token) is `length`.
  void table(std::span<const int32_t> positions, int64_t length, float* cos, float* sin) const;

 private:
  enum class Kind : uint8_t { fixed, dynamic, longrope };
  Kind kind_ = Kind::fixed;
  std::vector<float> short_, long_;  // frequencies; long_: beyond `boundary_` (longrope)
  int64_t boundary_ = 0;             // length from which on dynamic and longrope change
  double theta_ = 10000, factor_ = 1, reach_ = 1;
  float scaling_ = 1;
};

// Rotates the first 2 * half numbers of each of `heads` vectors that lie `width` apart, in place: (a, b) -> (a cos - b sin, b cos + a sin) for a in the first
// half, b in the second.
void rotate(float* x, int64_t heads, int64_t width, int64_t half, const float* cos, const float* sin);
// The same for models whose pairs are neighbours.
void rotate_neighbours(float* x, int64_t heads, int64_t width, int64_t half, const float* cos, const float* sin);

}  // namespace qb::layer
