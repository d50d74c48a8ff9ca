#include "kernel/integers.h"

#include <fmt/format.h>

namespace qb::kernel {

Verdict integers_accept(Weights kind, const Problem& p) {
  const auto no = [](std::string why) { return Verdict{false, std::move(why), ""}; };
  if (Verdict v = panels_accept_weight(kind, p); !v.ok) return v;
  const std::optional<IntegerInputs> in = integer_inputs(p);
  const ir::QuantType& w = p.scheme.weight;
  if (kind == Weights::fp4 && group_columns(w) == 0) return no("knows scales of groups only, these are " + ir::to_string(w));
  if (kind == Weights::fp4 && nvfp4_inputs(p)) return {true, "", panels_note(kind, p)};
  if (!in)
    return no("multiplies integers, the activations are " + (p.inputs == Inputs::as_scheme && p.scheme.input ? ir::to_string(*p.scheme.input) : "floats"));
  if (in->columns != 0 && in->columns != p.k)
    return no("knows scales of activations for a tensor and for a token, these are " + ir::to_string(*p.scheme.input));
  const int64_t group = group_columns(w), columns = group == 0 ? p.k : group;
  if (panel_group(form_of(kind).layout, w) > most_group) return no(fmt::format("knows groups of up to {} columns, these are {}", most_group, ir::to_string(w)));
  // The largest magnitudes of a code less its zero point.
  const int weight_bits = bits(w.code) - (w.zero == ir::Zero::none && kind != Weights::fp4 ? 1 : 0), input_bits = in->bits - (in->zeros ? 0 : 1);
  const int64_t most = (int64_t{1} << (31 - weight_bits - input_bits)) - 1;
  if (columns > most) return no(fmt::format("adds up at most {} columns in 32 bits, there are {}", most, columns));
  return {true, "", panels_note(kind, p)};
}

}  // namespace qb::kernel
