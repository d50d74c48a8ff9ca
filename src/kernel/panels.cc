#include "kernel/panels.h"

#include <fmt/format.h>

namespace qb::kernel {
namespace {

Verdict no(std::string why) {
  return {false, std::move(why)};
}

std::string_view word(Weights kind) {
  constexpr std::string_view words[] = {"bf16 weights", "fp8 weights", "fp4 weights", "integers of up to four bits", "integers of five to eight bits"};
  return words[static_cast<size_t>(kind)];
}

bool holds(Weights kind, Elem code) {
  switch (kind) {
    case Weights::fp8:
      return code == Elem::e4m3;
    case Weights::fp4:
      return code == Elem::e2m1;
    case Weights::int4:
      return is_integer_code(code) && bits(code) <= 4;
    case Weights::int8:
      return is_integer_code(code) && bits(code) > 4;
    case Weights::bf16:
      break;
  }
  return code == Elem::bf16;
}

}  // namespace

Verdict panels_accept_weight(Weights kind, const Problem& p) {
  const ir::QuantType& w = p.scheme.weight;
  const bool integer = kind == Weights::int4 || kind == Weights::int8;
  ir::Features beyond = p.scheme.features;
  if (integer && group_columns(w) != 0) beyond.actorder = false;
  if (beyond != ir::Features{}) return no("knows no rotations, pre-scales, low-rank parts or other features of a scheme");
  if (!holds(kind, w.code) || w.plain() != (kind == Weights::bf16)) return no(fmt::format("reads {}, these are {}", word(kind), ir::to_string(w)));
  if (w.plain()) return {true, ""};
  if (w.zero != ir::Zero::none && !integer) return no("knows zero points of integers only");
  const bool groups = group_columns(w) != 0, powers = w.scale == ir::ScaleValues::e8m0;
  if ((w.two_level() && (kind != Weights::fp4 || !groups)) || (powers && (integer || !groups)))
    return no(fmt::format("knows no scales of this kind, these are {}", ir::to_string(w)));
  if (kind == Weights::fp8 && tiled(p)) return {true, ""};
  const int64_t step = form_of(kind).unit;
  if (groups ? group_columns(w) % step != 0 : w.block != ir::Block{0, 0} && w.block != ir::Block{1, 0})
    return no(fmt::format("knows scales of a tensor, of a channel, of groups of whole {} columns{}, these are {}", step,
                          kind == Weights::fp8 ? " and of tiles of whole 16 rows" : "", ir::to_string(w)));
  return {true, ""};
}

std::string panels_note(Weights kind, const Problem& p) {
  const int width = kind == Weights::int4 ? 4 : 8, has = bits(p.scheme.weight.code);
  const bool integer = kind == Weights::int4 || kind == Weights::int8;
  std::string note = integer && has != width ? fmt::format("codes of {} bits take {} bits each in memory", has, width) : "";
  if (p.scheme.features.actorder) note += std::string(note.empty() ? "" : ", ") + "columns lie in the order of their groups";
  return note;
}

Verdict panels_accept(Weights kind, const Problem& p) {
  if (Verdict v = panels_accept_weight(kind, p); !v.ok) return v;
  const std::optional<Quantization> q = quantization_of(p);
  if (!q) return no("knows no activations of the kind " + ir::to_string(*p.scheme.input));
  if (*q == Quantization::f32) return no("multiplies in bfloat16, the activations are to stay float32");
  const ir::QuantType& w = p.scheme.weight;
  const bool together =
      w.scale == ir::ScaleValues::any && (tiled(p) || group_columns(w) != 0) && is_group(*q) && p.scheme.input->type.block.cols == w.block.cols;
  if (is_group(*q) && (kind != Weights::fp8 || !together))
    return no("knows group scales of activations only beside fp8 weights with a scale for the same columns");
  if (p.scheme.features.actorder && (is_mx(*q) || *q == Quantization::nvfp4)) return no("knows no blocks of activations whose columns lie apart");
  return {true, "", panels_note(kind, p)};
}

double panel_weight_bytes(Weights kind, const ir::QuantType& w) {
  const Form form = form_of(kind);
  const double codes = 64.0 / static_cast<double>(form.columns * ir::panel_rows);
  const int64_t group = group_columns(w);
  if (group == 0) return codes;
  return codes + (bits(panel_scale_elem(w)) + (w.zero == ir::Zero::none ? 0.0 : 8.0)) / 8 / static_cast<double>(group);
}

double panels_cost_ns(Weights kind, const Rates& r, const Problem& p, const host::Cpu& cpu) {
  constexpr double tokens_for_one_decode = 192;
  const double weights = static_cast<double>(p.n) * static_cast<double>(p.k), m = static_cast<double>(p.m);
  const bool few = p.m <= r.few;
  const double decode = few                     ? 1 / r.codes[static_cast<size_t>(kind)]
                        : kind == Weights::bf16 ? 0
                                                : 1 / r.blocked_codes * std::max(1.0, m / tokens_for_one_decode);
  const double compute = weights * (m / r.products + decode) / cpu.clock_ghz;
  const double memory = weights * panel_weight_bytes(kind, p.scheme.weight) / cpu.read_gbs;
  // Neither hides behind the other wholly: kernels whose decode is 1.4 to 2.1 times as fast as memory lost a fifth to a quarter of their own time besides.
  return std::max(compute, memory) + 0.25 * std::min(compute, memory);
}

}  // namespace qb::kernel
