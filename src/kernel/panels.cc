#include "kernel/panels.h"

#include <fmt/format.h>

namespace qb::kernel {
namespace {

Verdict no(std::string why) {
  return {false, std::move(why)};
}

std::string_view word(Weights kind) {
  constexpr std::string_view words[] = {"bf16 weights", "fp8 weights", "fp4 weights", "integers of up to four bits", "integers of five to eight bits",
                                        "f16 weights",  "f32 weights"};
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
    case Weights::f16:
      return code == Elem::f16;
    case Weights::f32:
      return code == Elem::f32;
    case Weights::bf16:
      break;
  }
  return code == Elem::bf16;
}

}  // namespace

Verdict panels_accept_weight(Weights kind, const Problem& p) {
  const ir::QuantType& w = p.scheme.weight;
  const bool integer = kind == Weights::int4 || kind == Weights::int8, groups = group_columns(w) != 0;
  ir::Features beyond = p.scheme.features;
  if (integer && groups) beyond.actorder = false;
  if (beyond != ir::Features{}) return no("knows no rotations, pre-scales, low-rank parts or other features of a scheme");
  if (!holds(kind, w.code) || w.plain() != is_plain(kind)) return no(fmt::format("reads {}, these are {}", word(kind), ir::to_string(w)));
  if (w.plain()) return {true, ""};
  if (w.zero != ir::Zero::none && !integer) return no("knows zero points of integers only");
  if ((w.two_level() && (integer || !groups)) ||
      (!groups && !whole_tiles(w) && !scaled_by_column(w) && w.block != ir::Block{0, 0} && w.block != ir::Block{1, 0}))
    return no(fmt::format("knows no scales of this kind, these are {}", ir::to_string(w)));
  if (const int64_t room = panel_group(form_of(kind).layout, w); room > 2 * group_columns(w))
    return no(fmt::format("fills up groups to {} columns, which would more than double these of {}", room, ir::to_string(w)));
  return {true, ""};
}

std::string panels_note(Weights kind, const Problem& p) {
  const ir::QuantType& w = p.scheme.weight;
  std::string note;
  const auto also = [&note](const std::string& what) { note += (note.empty() ? "" : ", ") + what; };
  if (is_integer_code(w.code) && bits(w.code) != bits_of(kind)) also(fmt::format("codes of {} bits take {} bits each in memory", bits(w.code), bits_of(kind)));
  if (const int64_t group = group_columns(w), places = panel_group(form_of(kind).layout, w); group != places)
    also(fmt::format("groups of {} columns take the room of {}", group, places));
  if (group_columns(w) != 0 && w.block.rows > 1) also("each row has its tiles' scales for itself in memory");
  if (scaled_by_column(w)) also("decoded a piece at a time for few tokens too, since each column has a scale");
  if (p.scheme.features.actorder) also("columns lie in the order of their groups");
  return note;
}

bool codes_apart(Weights kind, const Problem& p) {
  const std::optional<Quantization> q = quantization_of(p);
  if (!q || *q == Quantization::f32) return false;
  const ir::QuantType& w = p.scheme.weight;
  const bool known = whole_tiles(w) || (group_columns(w) != 0 && w.scale == ir::ScaleValues::any);
  return !is_group(*q) || (kind == Weights::fp8 && known && p.scheme.input->type.block.cols == w.block.cols);
}

Verdict panels_accept(Weights kind, Products products, const Problem& p) {
  if (Verdict v = panels_accept_weight(kind, p); !v.ok) return v;
  const std::optional<Quantization> q = quantization_of(p);
  if (!q && (products == Products::bf16 || !integer_inputs(p))) return no("knows no activations of the kind " + ir::to_string(*p.scheme.input));
  if (products == Products::bf16 && *q == Quantization::f32) return no("multiplies in bfloat16, the activations are to stay float32");
  if (products == Products::bf16 && !codes_apart(kind, p))
    return no("multiplies in bfloat16, and knows group scales of activations only beside fp8 weights with a scale for the same columns");
  return {true, "", panels_note(kind, p)};
}

double panel_weight_bytes(Weights kind, const Problem& p) {
  const ir::QuantType& w = p.scheme.weight;
  const double places = static_cast<double>(panel_columns(form_of(kind).layout, w, p.k)) / static_cast<double>(p.k);
  const double codes = bits_of(kind) / 8.0 * places;
  const int64_t group = group_columns(w);
  if (scaled_by_column(w)) return codes + 4.0 / w.block.rows;
  if (group == 0) return codes;
  return codes + (bits(panel_scale_elem(w)) + (w.zero == ir::Zero::none ? 0.0 : 8.0)) / 8 / static_cast<double>(group);
}

double panels_cost_ns(Weights kind, const Rates& r, const Problem& p, const host::Cpu& cpu) {
  constexpr double tokens_for_one_decode = 512;
  const double rows = static_cast<double>(p.n), m = static_cast<double>(p.m);
  const double weights = rows * static_cast<double>(panel_columns(form_of(kind).layout, p.scheme.weight, p.k));
  const bool few = p.m <= r.few && !scaled_by_column(p.scheme.weight);
  const double decode = few ? 1 / r.codes[static_cast<size_t>(kind)] : is_plain(kind) ? 0 : 1 / r.blocked_codes * std::max(1.0, m / tokens_for_one_decode);
  // Plain numbers are loaded beside the products, others take instructions of their own.
  const double cycles = few && is_plain(kind) ? std::max(m / r.products, decode) : m / r.products + decode;
  const double compute = weights * cycles / cpu.clock_ghz;
  const double memory = rows * static_cast<double>(p.k) * panel_weight_bytes(kind, p) / cpu.read_gbs;
  // Neither hides behind the other wholly: kernels whose decode is 1.4 to 2.1 times as fast as memory lost a fifth to a quarter of their own time besides.
  return std::max(compute, memory) + 0.25 * std::min(compute, memory);
}

double panels_cost_ns(Weights kind, const TileRates& r, const Problem& p, const host::Cpu& cpu) {
  constexpr double tokens_for_one_decode = 512;
  constexpr auto parts = [](int64_t whole, int64_t part) { return static_cast<double>((whole + part - 1) / part); };
  const ir::QuantType& w = p.scheme.weight;
  const ir::Layout layout = form_of(kind).layout;
  const int64_t columns = r.products == Products::int8 ? 64 : 32, places = panel_columns(layout, w, p.k);
  // Scales that are powers of two or have few bits are in the weight already where it is bfloat16.
  const bool in_weight = r.products == Products::bf16 && panel_scale_elem(w) != Elem::f32;
  const int64_t group = whole_tiles(w) ? w.block.cols : in_weight ? 0 : panel_group(layout, w);
  const double groups = group == 0 ? 0 : parts(places, group), steps = group == 0 ? parts(places, columns) : groups * parts(group, columns);
  const double decode =
      is_plain(kind) ? 0 : static_cast<double>(p.n * places) / r.blocked_codes * std::max(1.0, static_cast<double>(p.m) / tokens_for_one_decode);
  const double compute = (parts(p.m, 16) * parts(p.n, ir::panel_rows) * (steps * r.step + groups * r.group) + decode) / cpu.clock_ghz;
  const double memory = static_cast<double>(p.n) * static_cast<double>(p.k) * panel_weight_bytes(kind, p) / cpu.read_gbs;
  // A piece of the weight is read, then multiplied with all tokens: with few of them neither hides behind the other.
  return compute + memory;
}

}  // namespace qb::kernel
