// Printing and parsing of schemes: the grammar of docs/schemes.md.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <vector>

#include "ir/shorthand.h"
#include "ir/types.h"

namespace qb::ir {
namespace {

struct CodeName {
  std::string_view name;
  Elem elem;
  bool code;  // can be a quantized code; the others are plain numbers
};
constexpr std::array code_names{
    CodeName{"bf16", Elem::bf16, false},   CodeName{"f16", Elem::f16, false},     CodeName{"f32", Elem::f32, false},     CodeName{"fp8", Elem::e4m3, true},
    CodeName{"fp8e5m2", Elem::e5m2, true}, CodeName{"fp6e2m3", Elem::e2m3, true}, CodeName{"fp6e3m2", Elem::e3m2, true}, CodeName{"fp4", Elem::e2m1, true},
    CodeName{"int2", Elem::int2, true},    CodeName{"int3", Elem::int3, true},    CodeName{"int4", Elem::int4, true},    CodeName{"int5", Elem::int5, true},
    CodeName{"int6", Elem::int6, true},    CodeName{"int7", Elem::int7, true},    CodeName{"int8", Elem::i8, true},
};

struct Alias {
  std::string_view name;
  Elem code;
  ScaleValues scale;
  int32_t group;
};
constexpr std::array aliases{
    Alias{"nvfp4", Elem::e2m1, ScaleValues::e4m3, 16},
    Alias{"mxfp4", Elem::e2m1, ScaleValues::e8m0, 32},
    Alias{"mxfp8", Elem::e4m3, ScaleValues::e8m0, 32},
};

enum class Side : uint8_t { weight, activation };

std::string print_type(const QuantType& t, Side side, std::string_view when) {
  if (t.plain()) {
    for (const CodeName& c : code_names)
      if (c.elem == t.code) return std::string(c.name);
    return std::string(info(t.code).name);
  }
  std::string gran;
  if (t.block == Block{0, 0})
    gran = "_tensor";
  else if (t.block == Block{1, 0})
    gran = side == Side::weight ? "_channel" : "_token";
  else if (t.block.rows == 1)
    gran = fmt::format("_g{}", t.block.cols);
  else
    gran = fmt::format("_{}x{}", t.block.rows, t.block.cols);
  const std::string asym = t.zero == Zero::code ? "_asym" : "";
  for (const Alias& a : aliases) {
    if (a.code != t.code || a.scale != t.scale || t.block.rows != 1 || t.block.cols == 0) continue;
    return fmt::format("{}{}{}{}", a.name, t.block.cols == a.group ? "" : gran, asym, when);
  }
  std::string name;
  for (const CodeName& c : code_names)
    if (c.elem == t.code) name = c.name;
  const std::string_view at = t.scale == ScaleValues::e4m3 ? "@e4m3" : t.scale == ScaleValues::e8m0 ? "@e8m0" : "";
  return fmt::format("{}{}{}{}{}", name, gran, asym, when, at);
}

Error bad(std::string_view word, std::string why) {
  return {Errc::invalid_argument, fmt::format("scheme '{}': {}", word, why)};
}

bool number(std::string_view s, int32_t& out) {
  if (s.empty() || s.size() > 7 || (s.size() > 1 && s.front() == '0')) return false;
  auto [end, err] = std::from_chars(s.data(), s.data() + s.size(), out);
  return err == std::errc() && end == s.data() + s.size() && out > 0;
}

std::vector<std::string_view> split(std::string_view s, char at) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0;;) {
    const size_t end = s.find(at, begin);
    parts.push_back(s.substr(begin, end == s.npos ? s.npos : end - begin));
    if (end == s.npos) return parts;
    begin = end + 1;
  }
}

std::string choices(std::string_view family, Side side) {
  std::string out;
  for (const char* g :
       side == Side::weight ? std::array{"_tensor", "_channel", "_g128", "_128x128"} : std::array{"_tensor_static", "_tensor_dyn", "_token", "_g128"})
    out += fmt::format("{}{}{}", out.empty() ? "" : ", ", family, g);
  return out;
}

std::string unknown_word(std::string_view text, std::string_view word) {
  std::vector<std::string_view> known;
  for (const CodeName& c : code_names) known.push_back(c.name);
  for (const Alias& a : aliases) known.push_back(a.name);
  for (const Shorthand& s : shorthands()) known.push_back(s.name);
  return fmt::format("unknown number format '{}'; near names: {}", word, near_names(text, known));
}

constexpr std::string_view rounding_words[] = {"", "_even", "_up"};

struct Parsed {
  QuantType type;
  std::optional<When> when;
  Rounding rounding = Rounding::down;
};

// MX blocks: the run-time rule for their scales is open.
bool several_rules(const QuantType& t) {
  return t.scale == ScaleValues::e8m0 && t.block == Block{1, 32};
}

// One side of a scheme: <elem>[_granularity][_asym][_static|_dyn][_up|_even][@scale].
Result<Parsed> parse_type(std::string_view text, Side side) {
  Parsed p;
  QuantType& t = p.type;
  std::string_view body = text;
  std::optional<ScaleValues> at;
  if (const size_t i = text.find('@'); i != text.npos) {
    body = text.substr(0, i);
    const std::string_view s = text.substr(i + 1);
    if (s == "e4m3")
      at = ScaleValues::e4m3;
    else if (s == "e8m0")
      at = ScaleValues::e8m0;
    else
      return bad(text, fmt::format("unknown scale values '@{}'; known: @e4m3, @e8m0", s));
  }
  const std::vector<std::string_view> words = split(body, '_');
  const Alias* alias = nullptr;
  for (const Alias& a : aliases)
    if (a.name == words[0]) alias = &a;
  const CodeName* code = nullptr;
  for (const CodeName& c : code_names)
    if (c.name == words[0]) code = &c;
  if (alias == nullptr && code == nullptr) return bad(text, unknown_word(text, words[0]));
  if (alias != nullptr && at) return bad(text, fmt::format("'{}' already says what its scales are; leave '@...' away", alias->name));
  t.code = alias != nullptr ? alias->code : code->elem;
  t.scale = alias != nullptr ? alias->scale : at.value_or(ScaleValues::any);
  std::optional<Block> block;
  size_t i = 1;
  if (i < words.size()) {
    const std::string_view w = words[i];
    int32_t a = 0, b = 0;
    if (w == "tensor")
      block = Block{0, 0};
    else if (w == "channel" && side == Side::weight)
      block = Block{1, 0};
    else if (w == "token" && side == Side::activation)
      block = Block{1, 0};
    else if (w == "channel")
      return bad(text, "activations have one scale per token, not per channel: write _token");
    else if (w == "token")
      return bad(text, "weights have one scale per channel, not per token: write _channel");
    else if (w.starts_with('g') && number(w.substr(1), a))
      block = Block{1, a};
    else if (const size_t x = w.find('x'); x != w.npos && number(w.substr(0, x), a) && number(w.substr(x + 1), b))
      block = Block{a, b};
    if (block) ++i;
  }
  if (i < words.size() && words[i] == "asym") {
    t.zero = Zero::code;
    ++i;
  }
  if (i < words.size() && (words[i] == "static" || words[i] == "dyn")) {
    if (side == Side::weight) return bad(text, fmt::format("'_{}' belongs to activations; weights have no run-time scales", words[i]));
    p.when = words[i] == "static" ? When::fixed : When::per_call;
    ++i;
  }
  if (i < words.size() && (words[i] == "up" || words[i] == "even")) {
    if (side == Side::weight) return bad(text, fmt::format("'_{}' says how scales of activations are taken at run time; weights have none", words[i]));
    p.rounding = words[i] == "up" ? Rounding::up : Rounding::even;
    ++i;
  }
  if (i < words.size())
    return bad(text, fmt::format("unexpected '_{}'; the order is <elem>[_tensor|_channel|_token|_gN|_RxC][_asym][_static|_dyn][_up|_even][@scale]", words[i]));
  if (code != nullptr && !code->code) {
    if (block || at || p.when || t.zero != Zero::none) return bad(text, fmt::format("{} numbers are plain: they have no scales", code->name));
    t = {.code = code->elem, .scale = ScaleValues::none, .block = {}, .zero = Zero::none};
    return p;
  }
  if (alias != nullptr) {
    if (block && (block->rows != 1 || block->cols == 0)) return bad(text, fmt::format("{} has groups along a row: {}_gN", alias->name, alias->name));
    t.block = block.value_or(Block{1, alias->group});
    return p;
  }
  if (!block) return bad(text, fmt::format("'{}' leaves the granularity open; choose one of {}", words[0], choices(words[0], side)));
  t.block = *block;
  return p;
}

std::optional<When> implied_when(const QuantType& t) {
  if (t.plain()) return When::per_call;
  if (t.two_level()) return When::fixed;
  if (t.block == Block{0, 0}) return std::nullopt;  // must be written
  return When::per_call;
}

bool parse_feature(std::string_view word, Features& f) {
  int32_t rank = 0;
  if (word.starts_with("out_") && !f.output) {
    const Result<Activation> output = parse_activation(word.substr(4));
    if (output && output->when == When::fixed) f.output = *output;
    return f.output.has_value();
  }
  if (word == "prescale" && !f.prescale) return f.prescale = true;
  if (word == "actorder" && !f.actorder) return f.actorder = true;
  if (word == "sparse24" && !f.sparse24) return f.sparse24 = true;
  if (word == "transform" && !f.transform) return f.transform = true;
  if (word.starts_with("lowrank") && f.lowrank == 0 && number(word.substr(7), rank)) return (f.lowrank = rank) > 0;
  return false;
}

}  // namespace

std::string to_string(const QuantType& t) {
  return print_type(t, Side::weight, "");
}

std::string to_string(const Activation& a) {
  const std::optional<When> implied = implied_when(a.type);
  if (a.type.plain()) return print_type(a.type, Side::activation, "");
  return print_type(a.type, Side::activation,
                    fmt::format("{}{}",
                                implied == a.when       ? ""
                                : a.when == When::fixed ? "_static"
                                                        : "_dyn",
                                rounding_words[static_cast<size_t>(a.rounding)]));
}

std::string to_string(const Scheme& s) {
  std::string out = to_string(s.weight);
  if (s.input) out += ":" + to_string(*s.input);
  if (s.features.prescale) out += "+prescale";
  if (s.features.lowrank > 0) out += fmt::format("+lowrank{}", s.features.lowrank);
  if (s.features.actorder) out += "+actorder";
  if (s.features.sparse24) out += "+sparse24";
  if (s.features.transform) out += "+transform";
  if (s.features.output) out += "+out_" + to_string(*s.features.output);
  return out;
}

Result<Activation> parse_activation(std::string_view text) {
  QB_ASSIGN(const Parsed p, parse_type(text, Side::activation));
  const std::optional<When> when = p.when ? p.when : implied_when(p.type);
  if (!when)
    return bad(text, fmt::format("say where the scale comes from: {0}_static (from the checkpoint) or {0}_dyn (at run time)", text.substr(0, text.find('@'))));
  if (p.rounding != Rounding::down && (!several_rules(p.type) || *when == When::fixed))
    return bad(text, "'_up' and '_even' belong to MX blocks (groups of 32, @e8m0) whose scales are taken at run time");
  return Activation{p.type, *when, p.rounding};
}

Result<Scheme> parse_scheme(std::string_view text) {
  if (text.size() > 256) return bad(text.substr(0, 40), "longer than 256 characters");
  if (const Shorthand* s = find_shorthand(text)) text = s->scheme;
  Scheme scheme;
  std::string_view head = text;
  if (const size_t plus = text.find('+'); plus != text.npos) {
    head = text.substr(0, plus);
    for (std::string_view word : split(text.substr(plus + 1), '+'))
      if (!parse_feature(word, scheme.features))
        return bad(
            text,
            fmt::format("unknown or repeated feature '+{}'; known: +prescale, +lowrankN, +actorder, +sparse24, +transform, +out_<activation>_static", word));
  }
  const size_t colon = head.find(':');
  QB_ASSIGN(const Parsed weight, parse_type(head.substr(0, colon), Side::weight));
  scheme.weight = weight.type;
  if (colon != head.npos) {
    QB_ASSIGN(scheme.input, parse_activation(head.substr(colon + 1)));
  }
  return scheme;
}

double nominal_bits(const QuantType& t, int64_t n, int64_t k) {
  const double weights = static_cast<double>(n) * static_cast<double>(k);
  if (t.plain() || weights == 0) return bits(t.code);
  const auto blocks = [](int64_t size, int32_t block) { return block == 0 ? 1.0 : static_cast<double>((size + block - 1) / block); };
  const double scale_bits = t.scale == ScaleValues::any ? 32 : 8;
  const double scales = blocks(n, t.block.rows) * blocks(k, t.block.cols);
  const double zero_bits = t.zero == Zero::none ? 0 : bits(t.code);
  return bits(t.code) + (scales * (scale_bits + zero_bits) + (t.two_level() ? 32 : 0)) / weights;
}

}  // namespace qb::ir
