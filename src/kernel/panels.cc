#include "kernel/panels.h"

namespace qb::kernel {
namespace {

Verdict no(std::string why) {
  return {false, std::move(why)};
}

Verdict accepts_weight(Weights kind, const Problem& p) {
  const ir::QuantType& w = p.scheme.weight;
  switch (kind) {
    case Weights::bf16:
      if (!w.plain() || w.code != Elem::bf16) return no("reads bf16 weights, these are " + ir::to_string(w));
      break;
    case Weights::fp8:
      if (w.plain() || w.code != Elem::e4m3 || w.scale != ir::ScaleValues::any || w.zero != ir::Zero::none) {
        return no("reads fp8 weights with scales of any value, these are " + ir::to_string(w));
      }
      if (w.block != ir::Block{0, 0} && w.block != ir::Block{1, 0} && !tiled(p)) {
        return no("knows scales of a tensor, of a channel and of 128 x 128 weights, these are " + ir::to_string(w));
      }
      break;
    case Weights::nvfp4:
      if (w.code != Elem::e2m1 || !w.two_level() || w.block != ir::Block{1, 16} || w.zero != ir::Zero::none) {
        return no("reads nvfp4 weights, these are " + ir::to_string(w));
      }
      break;
  }
  return {true, ""};
}

}  // namespace

Verdict panels_accept(Weights kind, const Problem& p) {
  if (p.scheme.features != ir::Features{}) return no("knows no rotations, pre-scales, low-rank parts or other features of a scheme");
  if (Verdict v = accepts_weight(kind, p); !v.ok) return v;
  const std::optional<Quantization> q = quantization_of(p);
  if (!q) return no("knows no activations of the kind " + ir::to_string(*p.scheme.input));
  if (*q == Quantization::f32) return no("multiplies in bfloat16, the activations are to stay float32");
  if (is_mx(*q)) return no("knows no MX blocks of activations");
  if (is_group(*q) && (kind != Weights::fp8 || !tiled(p) || p.scheme.input->type.block.cols != tile)) {
    return no("knows group scales of activations only for 128 columns beside fp8 weights in 128 x 128 blocks");
  }
  return {true, ""};
}

double panels_cost_ns(Weights kind, const Rates& r, const Problem& p, const host::Cpu& cpu) {
  constexpr double bytes_of[] = {2.0, 1.0, 0.5625};
  constexpr double tokens_for_one_decode = 192;
  const double weights = static_cast<double>(p.n) * static_cast<double>(p.k), m = static_cast<double>(p.m);
  const bool few = p.m <= r.few;
  const double decode = few                     ? 1 / r.codes[static_cast<size_t>(kind)]
                        : kind == Weights::bf16 ? 0
                                                : 1 / r.blocked_codes * std::max(1.0, m / tokens_for_one_decode);
  const double compute = weights * (m / r.products + decode) / cpu.clock_ghz;
  const double memory = weights * bytes_of[static_cast<size_t>(kind)] / cpu.read_gbs;
  // Neither hides behind the other wholly: kernels whose decode is 1.4 to 2.1 times as fast as memory lost a fifth to a quarter of their own time besides.
  return std::max(compute, memory) + 0.25 * std::min(compute, memory);
}

}  // namespace qb::kernel
