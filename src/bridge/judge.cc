#include "bridge/judge.h"

#include <fmt/format.h>

#include "num/codec.h"

namespace qb {
namespace {

using ir::Role;

// Where an element lies in the tensor.
std::string index_text(int64_t i, const ir::Stored& s) {
  if (i < 0 || s.shape.empty()) return "";
  std::string at;
  for (size_t axis = s.shape.size(); axis-- > 0;) {
    const int64_t size = s.shape[axis];
    if (size <= 0) return "";
    at = fmt::format("{}{}{}", axis == 0 ? i : i % size, at.empty() ? "" : ", ", at);
    i /= size;
  }
  return fmt::format(" at [{}]", at);
}

bool has_fields(const ir::Stored& part) {
  return part.elem == Elem::e2m1 || !info(part.elem).is_float || bits(part.elem) < 8;
}

}  // namespace

Place place_of(const Package& p, const Subject& s) {
  return {.file = p.file_name(s.part->file), .tensor = s.part->tensor, .module = s.module->path};
}

bool covers(const ir::Stored& s) {
  const ir::View& v = s.view;
  const bool once = s.mask.tensor.empty() && v.parts.empty() && v.repeat == std::array<ir::View::Repeat, 2>{};
  return once && static_cast<uint64_t>(v.dims[0] * v.dims[1]) * static_cast<uint64_t>(bits(s.elem)) == s.bytes * 8;
}

std::optional<ir::Stored> padding_of(const ir::Stored& s) {
  const ir::View& v = s.view;
  const int64_t width = bits(s.elem), row = v.stride[0], used = v.dims[1] * width;
  const bool rows = s.mask.tensor.empty() && v.parts.empty() && v.stride[1] == width && v.lanes == std::array<ir::Lanes, 2>{} && v.offset == 0;
  if (!rows || row <= used || (row - used) % width != 0 || static_cast<uint64_t>(v.dims[0] * row) != s.bytes * 8) return std::nullopt;
  ir::Stored padding = s;
  padding.view.dims[1] = (row - used) / width;
  padding.view.offset = used;
  if (is_integer_code(s.elem) || width % 8 != 0) return padding;
  padding.elem = Elem::u8;  // a zero with a sign is none of the producer's
  padding.view.dims[1] = (row - used) / 8;
  padding.view.stride[1] = 8;
  return padding;
}

ScanQuestion question_of(const Subject& s, std::string_view head) {
  const ir::Stored& part = *s.part;
  const ir::Module& m = *s.module;
  ScanQuestion q{.tensor = part.tensor, .file = part.file, .offset = part.offset, .bytes = part.bytes};
  q.elem = part.elem;
  if (!has_fields(part) && covers(part)) {
    if (!ir::is_factor(part.role))
      q.ask = ScanQuestion::Ask::finite;
    else if (!part.value)  // the verifier judges scalars
      q.ask = ScanQuestion::Ask::all;
  }
  const bool linear = (m.kind == arch::Kind::linear || m.kind == arch::Kind::expert) && m.path != head;
  if (part.role != Role::code || !linear) return q;
  if (m.scheme) {
    q.channels = channel_grid(part, m);
    if (!q.channels) q.channels = gathered_grid(part, m);
    if (q.channels && q.channels->gathered) q.gathered = prog::input_of(part, 1);
    q.levels = covers(part) && (part.elem == Elem::e4m3 || (part.elem == Elem::i8 && m.scheme->weight.code == Elem::i8));
  } else {
    q.codes = q.ask == ScanQuestion::Ask::finite && bits(part.elem) >= 16;
  }
  return q;
}

void judge_numbers(const Package& p, const Subject& s, const prog::SurveyResult& r, Diagnostics& diag) {
  const ir::Stored& part = *s.part;
  const ir::Module& m = *s.module;
  const Place place = place_of(p, s);
  const std::string at = index_text(r.first_bad, part);
  if (!ir::is_factor(part.role)) {
    if (r.nan == 0 && r.inf == 0) return;
    const char* code = m.scheme && part.role == Role::code ? "code-nan" : "weight-not-finite";
    diag.report(code, place, fmt::format("{} NaN and {} infinite of {}{}", r.nan, r.inf, r.count, at), "finite numbers");
    return;
  }
  if (r.nan > 0) diag.report("scale-nan", place, fmt::format("{} of {} scales are NaN{}", r.nan, r.count, at), "positive numbers");
  if (r.inf > 0) diag.report("scale-inf", place, fmt::format("{} of {} scales are infinite{}", r.inf, r.count, at), "positive finite numbers");
  if (r.negative > 0) diag.report("scale-negative", place, fmt::format("{} of {} scales are negative{}", r.negative, r.count, at), "positive numbers");
  if (r.zero > 0 && part.role != Role::scale) {
    // A zero block scale is judged with its codes; here it takes an input, a head or a weight away.
    Problem& found = diag.report("scale-zero", place, fmt::format("{} of {} numbers are zero{}", r.zero, r.count, at), "positive numbers");
    found.cls = ProblemClass::suspicious;
    found.severity = Severity::warning;
  }
  constexpr double implausible = 1e4;  // weights of trained models stay below 1000
  const bool e4m3 = part.role == Role::scale && m.scheme && m.scheme->weight.code == Elem::e4m3 && part.form == ir::ScaleForm::multiply;
  if (e4m3 && r.nan + r.inf == 0 && r.largest * 448 > implausible)
    diag.report("scale-implausible", place, fmt::format("a scale of {}: weights up to {}", r.largest, r.largest * 448),
                "scales that give weights as trained models have");
}

void judge_codes(const Package& p, const Subject& s, const ScanResult& r, Diagnostics& diag) {
  const Place place = place_of(p, s);
  const ChannelCounts& c = r.channels;
  // Rows of zeros do not speak against a scale where all of them are zero: an adapter that was never trained, a layer that was taken out.
  if (c.dead > 0 && c.dead < c.channels)
    diag.report("channel-dead", place, fmt::format("all codes of {} of {} outputs are one and the same, first of output {}", c.dead, c.channels, c.first_dead),
                "codes that differ");
  if (c.saturated > 0)
    diag.report("channel-saturated", place,
                fmt::format("more than half of the codes of {} of {} outputs are the largest, first of output {}", c.saturated, c.channels, c.first_saturated),
                "few codes at the ends of their range");
  // A thousand numbers of a bell-shaped or an even distribution take more than a hundred values of eight bits. Four bits are 16 values; of those of E2M1 times
  // powers of two, none has more than the first bit of E4M3's mantissa.
  constexpr int four_bits = 16;
  constexpr uint64_t many = 1024;
  constexpr uint8_t rest_of_mantissa = 3;
  if (r.levels && r.levels->count > 2 && s.part->bytes >= many) {
    const bool halves = s.part->elem == Elem::e4m3 && (r.levels->bits & rest_of_mantissa) == 0;
    if (r.levels->count <= four_bits || halves)
      diag.report("quantized-twice", place, fmt::format("{} different codes among {}", r.levels->count, s.part->bytes),
                  "more than a hundred, as rounding to eight bits gives");
  }
  if (r.are_codes)
    diag.report("codes-not-scaled", place, fmt::format("{} numbers, all of them whole or of E4M3, and half of them 1/2 or more", r.numbers.count),
                "weights: for inputs of length 1 such a layer's outputs would be of length 10 and more");
}

void judge_range(const Package& p, const Subject& s, const ScanResult& codes, bool unit, Diagnostics& diag) {
  const Elem elem = s.part->elem;
  if (!unit || codes.channels.channels == 0 || (elem != Elem::e4m3 && elem != Elem::e5m2)) return;
  const auto code = static_cast<uint8_t>(codes.largest);
  const double largest = elem == Elem::e4m3 ? decode_e4m3(code) : decode_e5m2(code), end = elem == Elem::e4m3 ? 448 : 57344;
  // A scale of the largest weight gives it the largest code; one that is rounded to a power of two, at least half of it.
  if (!(largest < end / 2) || largest == 0) return;
  diag.report("scale-not-used", place_of(p, s), fmt::format("scales of 1, and the largest code is {}", largest),
              fmt::format("codes up to {} and more, as measured scales give", end / 2));
}

}  // namespace qb
