#include "pass/quant_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/diagnostics.h"
#include "base/json.h"
#include "ir/shorthand.h"

namespace qb::pass {
namespace {

constexpr size_t largest_text = 1u << 20, most_rules = 10'000;

Error wrong(std::string_view where, std::string_view what) {
  return Error{Errc::invalid_argument, where.empty() ? std::string(what) : fmt::format("{}: {}", where, what)};
}

// Keys that the object may have; others are errors.
Result<void> only_keys(const Json& object, std::span<const std::string_view> known, std::string_view where) {
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return wrong(where, fmt::format("unknown key '{}'; near names: {}", escape(key), ir::near_names(key, known)));
  return {};
}

bool is_none(const Json& v) {
  return v.is_null() || (v.is_string() && v.get_ref<const std::string&>() == "none");
}

Result<std::string> text_of(const Json& v, std::string_view where) {
  if (v.is_string()) return v.get<std::string>();
  return wrong(where, fmt::format("expected a name or null, found {}", v.type_name()));
}

// A word that begins like a format may still be a slip of a shorthand.
std::string with_near_names(std::string what, std::string_view name) {
  if (what.find("near names") != what.npos || what.find("choose one of") != what.npos) return what;
  std::vector<std::string_view> known;
  for (const ir::Shorthand& s : ir::shorthands()) known.push_back(s.name);
  return fmt::format("{}; near names: {}", what, ir::near_names(name, known));
}

// A weight by its name. A shorthand may mean activations too: `scheme` has them.
Result<Says::Weight> weight_of(const std::string& name, std::string_view where, ir::Scheme& scheme) {
  Result<ir::Scheme> parsed = ir::parse_scheme(name);
  if (!parsed) return wrong(where, with_near_names(parsed.error().what, name));
  scheme = *parsed;
  if (scheme.weight.plain())
    return wrong(where, fmt::format("{} weights are not quantized; null or \"none\" leaves weights as they are", to_string(scheme.weight)));
  Says::Weight out{.type = scheme.weight, .features = scheme.features, .recipe = {}, .algorithm = {}};
  if (const ir::Shorthand* s = ir::find_shorthand(name); s != nullptr) {
    out.recipe = s->recipe;
    out.implied = !s->recipe.empty();
    out.algorithm = s->algorithm;
  }
  return out;
}

Says nothing_quantized() {
  return {.weight = Says::Weight{}, .input = Says::Input{}};
}

// A whole scheme: a name, or null.
Result<Says> scheme_of(const Json& v, std::string_view where) {
  if (is_none(v)) return nothing_quantized();
  QB_ASSIGN(const std::string name, text_of(v, where));
  ir::Scheme scheme;
  Says out;
  QB_ASSIGN(out.weight, weight_of(name, where, scheme));
  out.input = Says::Input{scheme.input};
  return out;
}

Result<Says::Input> input_of(const Json& v, std::string_view where) {
  if (is_none(v)) return Says::Input{};
  QB_ASSIGN(const std::string name, text_of(v, where));
  if (name == "bf16") return Says::Input{};
  Result<ir::Activation> parsed = ir::parse_activation(name);
  if (!parsed) return wrong(where, parsed.error().what);
  if (parsed->type.plain()) return wrong(where, fmt::format("activations are bf16, or quantized, not {}", escape(name)));
  return Says::Input{*parsed};
}

// The keys weight, activation, recipe and algorithm of an object that may have others.
Result<Says> parts_of(const Json& object, const std::string& where) {
  Says out;
  if (const Json* input = object.contains("activation") ? &object["activation"] : nullptr; input != nullptr) {
    QB_ASSIGN(out.input, input_of(*input, where + ".activation"));
  }
  if (object.contains("weight")) {
    const Json& weight = object["weight"];
    const std::string at = where + ".weight";
    if (is_none(weight)) {
      if (out.input && out.input->type) return wrong(where, "activations are quantized with weights only");
      return nothing_quantized();
    }
    QB_ASSIGN(const std::string name, text_of(weight, at));
    ir::Scheme scheme;
    QB_ASSIGN(out.weight, weight_of(name, at, scheme));
    if (scheme.input && !out.input)
      return wrong(
          at, fmt::format("{} means activations too ({}): say \"activation\" beside it, or write the name in place of the object", name, to_string(scheme)));
  }
  if (object.contains("algorithm")) {
    QB_ASSIGN(const std::string algorithm, text_of(object["algorithm"], where + ".algorithm"));
    if (!out.weight) return wrong(where + ".algorithm", "an algorithm makes a weight: say \"weight\" beside it");
    out.weight->made_by(algorithm);
  }
  if (!object.contains("recipe")) return out;
  QB_ASSIGN(const std::string recipe, text_of(object["recipe"], where + ".recipe"));
  if (!out.weight) return wrong(where + ".recipe", "a recipe makes a weight: say \"weight\" beside it");
  out.weight->recipe = recipe;
  out.weight->implied = false;
  return out;
}

Result<Says> entry_of(const Json& v, const std::string& where) {
  if (!v.is_object()) return scheme_of(v, where);
  static constexpr std::array<std::string_view, 4> keys{"weight", "activation", "recipe", "algorithm"};
  QB_TRY(only_keys(v, keys, where));
  return parts_of(v, where);
}

Result<std::vector<std::string>> rules_of(const Json& v) {
  std::vector<std::string> out;
  if (v.is_string()) return std::vector<std::string>{v.get<std::string>()};
  if (!v.is_array() || v.size() > most_rules) return wrong("ignore", "expected a list of rules");
  for (const Json& rule : v) {
    if (!rule.is_string() || rule.get_ref<const std::string&>().empty()) return wrong("ignore", "expected a list of rules, each a text");
    out.push_back(rule.get<std::string>());
  }
  return out;
}

Result<QuantConfig::Override> override_of(const Json& v, const std::string& where) {
  static constexpr std::array<std::string_view, 6> keys{"match", "scheme", "weight", "activation", "recipe", "algorithm"};
  if (!v.is_object()) return wrong(where, "expected an object with \"match\"");
  QB_TRY(only_keys(v, keys, where));
  QuantConfig::Override out;
  const Json* match = find(v, "match");
  if (match == nullptr || !match->is_string() || match->get_ref<const std::string&>().empty())
    return wrong(where, "\"match\" says which modules: a name, a shell pattern, re:REGEX or a fused name");
  out.match = match->get<std::string>();
  if (v.contains("scheme")) {
    if (v.size() > 2) return wrong(where, "a scheme says all of it: weight, activation, recipe or algorithm cannot stand beside it");
    QB_ASSIGN(out.says, scheme_of(v["scheme"], where + ".scheme"));
  } else {
    QB_ASSIGN(out.says, parts_of(v, where));
  }
  if (out.says.nothing()) return wrong(where, "it says nothing: \"scheme\", or \"weight\" and \"activation\"");
  return out;
}

Result<Says::Input> kv_of(const Json& v) {
  if (v.is_string() && v.get_ref<const std::string&>() == "fp8") return Says::Input{*ir::parse_activation("fp8_tensor_static")};
  return input_of(v, "kv_cache");
}

Result<QuantConfig> read(const Json& document) {
  if (!document.is_object()) return wrong("", "the configuration is no JSON object");
  static constexpr std::array<std::string_view, 8> keys{"default", "linear", "moe", "lm_head", "embedding", "kv_cache", "ignore", "overrides"};
  QB_TRY(only_keys(document, keys, ""));
  QuantConfig out;
  if (const auto it = document.find("default"); it != document.end()) {
    QB_ASSIGN(out.everything, entry_of(*it, "default"));
  }
  for (size_t k = 0; k < module_kind_names.size(); ++k) {
    const std::string name(module_kind_names[k]);
    if (const auto it = document.find(name); it != document.end()) {
      QB_ASSIGN(out.kinds[k], entry_of(*it, name));
    }
  }
  if (const Says& table = out.kinds[static_cast<size_t>(ModuleKind::embedding)]; table.input && table.input->type)
    return wrong("embedding", "its inputs are token ids, which nobody quantizes: name a weight alone");
  if (const auto it = document.find("kv_cache"); it != document.end()) {
    QB_ASSIGN(out.kv_cache, kv_of(*it));
  }
  if (const auto it = document.find("ignore"); it != document.end()) {
    QB_ASSIGN(out.ignore, rules_of(*it));
  }
  if (const auto it = document.find("overrides"); it != document.end()) {
    if (!it->is_array() || it->size() > most_rules) return wrong("overrides", "expected a list of objects with \"match\"");
    for (size_t i = 0; i < it->size(); ++i) {
      QB_ASSIGN(QuantConfig::Override one, override_of((*it)[i], fmt::format("overrides[{}]", i)));
      out.overrides.push_back(std::move(one));
    }
  }
  return out;
}

Result<Json> parse(std::string_view text) {
  Json out;
  JsonError error;
  if (text.size() > largest_text) return wrong("", fmt::format("the configuration has {} bytes, at most {} are read", text.size(), largest_text));
  if (!parse_json(text, out, error, 8)) return wrong("", fmt::format("the configuration cannot be parsed: {}", error.what));
  return out;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  const size_t begin = text.find_first_not_of(space);
  return begin == text.npos ? std::string_view() : text.substr(begin, text.find_last_not_of(space) - begin + 1);
}

// One "key=value" or "key.key=value", or all keys of an object, put into the document.
Result<void> set(Json& document, const std::string& setting) {
  if (setting.starts_with('{')) {
    QB_ASSIGN(const Json object, parse(setting));
    for (const auto& [key, value] : object.items()) document[key] = value;
    return {};
  }
  const size_t equals = setting.find('=');
  const std::string path = setting.substr(0, equals), value = equals == setting.npos ? std::string() : setting.substr(equals + 1);
  if (equals == setting.npos || path.empty() || value.empty()) return wrong("", fmt::format("'{}' is no KEY=VALUE", escape(setting)));
  const size_t dot = path.find('.');
  const std::string key = path.substr(0, dot);
  Json* at = &document;
  std::string last = key;
  if (dot != path.npos) {
    if (document.contains(key) && !document[key].is_object())
      return wrong(path, fmt::format("{} is no object with keys of its own already: {}", key, dump_json(document[key], -1)));
    if (!document.contains(key)) document[key] = Json::object();
    at = &document[key];
    last = path.substr(dot + 1);
  }
  if (value == "null") {
    (*at)[last] = nullptr;
  } else if (value.front() == '{' || value.front() == '[') {
    QB_ASSIGN((*at)[last], parse(value));
  } else {
    (*at)[last] = value;
  }
  return {};
}

}  // namespace

const RotationWord* find_rotation(std::string_view name) {
  const auto* const at = std::find_if(rotation_words.begin(), rotation_words.end(), [name](const RotationWord& w) { return w.name == name; });
  return at == rotation_words.end() ? nullptr : at;
}

void Says::Weight::made_by(std::string_view text) {
  const size_t plus = text.find('+');
  const RotationWord* const word = plus + 1 == text.size() ? nullptr : find_rotation(text.substr(0, plus));
  rotation = word == nullptr ? Rotation{} : word->means;
  algorithm = word == nullptr ? text : plus == text.npos ? std::string_view() : text.substr(plus + 1);
}

std::vector<Says*> QuantConfig::entries() {
  std::vector<Says*> all{&everything};
  for (Says& s : kinds) all.push_back(&s);
  for (Override& o : overrides) all.push_back(&o.says);
  return all;
}

Rotation QuantConfig::rotation() const {
  Rotation out;
  const auto add = [&out](const Says& s) {
    if (!s.weight) return;
    out.residual |= s.weight->rotation.residual;
    out.values |= s.weight->rotation.values;
  };
  add(everything);
  for (const Says& s : kinds) add(s);
  for (const Override& o : overrides) add(o.says);
  return out;
}

Result<QuantConfig> parse_quant_config(std::string_view text, std::span<const std::string> settings) {
  Json document = Json::object();
  text = trimmed(text);
  if (text.starts_with('{')) {
    QB_ASSIGN(document, parse(text));
  } else if (!text.empty()) {
    if (text.size() > 200) return wrong("", fmt::format("a name of {} bytes", text.size()));
    document["default"] = std::string(text);
  }
  for (const std::string& setting : settings) QB_TRY(set(document, setting));
  Result<QuantConfig> out = read(document);
  if (out) return out;
  // One name alone needs no key in front of what is wrong with it.
  std::string what = out.error().what;
  if (!text.starts_with('{') && what.starts_with("default: ")) what.erase(0, 9);
  return wrong("", what);
}

}  // namespace qb::pass
