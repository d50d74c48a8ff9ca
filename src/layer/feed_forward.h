// A gated feed-forward part: down(f(gate(x)) * up(x)), gate and up in two matrices or one above the other in one.
#pragma once

#include <cstddef>
#include <span>

#include "host/cpu.h"
#include "layer/activation.h"
#include "layer/linear.h"

namespace qb::layer {

// What a layer computes with besides its weights.
struct Tools {
  std::span<std::byte> workspace;  // at least what any of its linears asks for
  host::Feature features = host::Feature::none;
  host::ThreadPool& pool;
  // Experts see all tokens, whoever chose them; what a token gets stays the same. For those who look on: an expert that few tokens choose is seen like the
  // others.
  bool every_expert = false;
  Isa isa() const { return host::isa_of(features); }  // of loops
};

struct FeedForward {
  Linear gate, up;  // fused: all of it in `gate`
  Linear down;
  bool fused = false;
  Gate activation = Gate::silu;

  int64_t width() const { return down.k(); }
  int64_t scratch_per_row() const { return (fused ? 3 : 2) * width(); }  // floats
  // x: [rows, hidden]; y: [rows, hidden], may be x.
  void run(const float* x, int64_t rows, float* y, float* scratch, const Tools& tools) const;
};

}  // namespace qb::layer
