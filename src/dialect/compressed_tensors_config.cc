#include "dialect/compressed_tensors_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/json.h"

namespace qb {
namespace {

constexpr const char* file = "config.json";

struct Args {
  std::optional<ir::QuantType> type;
  ir::When when = ir::When::fixed;
  bool per_head = false, local = false;
  bool order = false;  // groups by activation order: which column is in which group is stored
};

void invalid(Diagnostics& diag, const std::string& where, std::string_view key, const Json& value, std::string expected) {
  diag.report("config-invalid", {.file = file}, fmt::format("{}.{} is {}", where, key, dump_json(value, -1).substr(0, 80)), std::move(expected));
}

void unsupported(Diagnostics& diag, const std::string& where, std::string what) {
  diag.report("algorithm-unsupported", {.file = file}, fmt::format("{}: {}", where, what),
              "integer or FP8 weights with integer or FP8 activations or none, NVFP4, MXFP4 or MXFP8");
}

constexpr std::array<std::string_view, 13> arg_keys{"num_bits", "type",        "symmetric", "group_size", "strategy",        "block_structure", "dynamic",
                                                    "actorder", "scale_dtype", "zp_dtype",  "observer",   "observer_kwargs", "is_online"};

// [rows, cols], or the string "128x128" of old files.
bool read_block(const Json& v, ir::Block& block) {
  int64_t r = 0, c = 0;
  if (v.is_array() && v.size() == 2 && v[0].is_number_integer() && v[1].is_number_integer()) {
    r = v[0].get<int64_t>();
    c = v[1].get<int64_t>();
  } else if (v.is_string()) {
    const auto& s = v.get_ref<const std::string&>();
    const size_t x = s.find('x');
    if (x == s.npos) return false;
    std::from_chars(s.data(), s.data() + x, r);
    std::from_chars(s.data() + x + 1, s.data() + s.size(), c);
  }
  if (r < 1 || c < 1 || r > 65536 || c > 65536) return false;
  block = {static_cast<int32_t>(r), static_cast<int32_t>(c)};
  return true;
}

Elem integer_of(int64_t num_bits) {
  return num_bits == 8 ? Elem::i8 : static_cast<Elem>(static_cast<int64_t>(Elem::int2) + num_bits - 2);
}

// QuantizationArgs. False after a report.
bool read_args(const Json& a, const std::string& where, Args& out, Diagnostics& diag) {
  if (!a.is_object()) return invalid(diag, where, "", a, "an object"), false;
  for (auto it = a.begin(); it != a.end(); ++it)
    if (std::find(arg_keys.begin(), arg_keys.end(), it.key()) == arg_keys.end()) {
      invalid(diag, where, escape(it.key()), *it, "one of the keys that compressed-tensors knows");
      return false;
    }
  const int64_t num_bits = int_at(a, "num_bits", 8);
  std::string type(string_at(a, "type", "int"));
  for (char& c : type) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const int64_t group = int_at(a, "group_size", 0);
  std::string strategy(string_at(a, "strategy"));
  if (strategy.empty()) strategy = group > 0 ? "group" : group == -1 ? "channel" : "tensor";
  const Json* dynamic = find(a, "dynamic");
  out.local = dynamic != nullptr && dynamic->is_string() && dynamic->get_ref<const std::string&>() == "local";
  if (dynamic != nullptr && !dynamic->is_boolean() && !dynamic->is_null() && !out.local)
    return invalid(diag, where, "dynamic", *dynamic, "true, false or \"local\""), false;
  out.when = dynamic != nullptr && dynamic->is_boolean() && dynamic->get<bool>() ? ir::When::per_call : ir::When::fixed;

  const auto what = [&] { return fmt::format("{} {} bits, strategy {}", type, num_bits, strategy); };
  const bool symmetric = bool_at(a, "symmetric", true);
  if (!symmetric && type != "int") return unsupported(diag, where, "asymmetric " + what()), false;
  // "weight" quantizes in another order and leaves the columns where they are.
  if (const Json* order = find(a, "actorder"); order != nullptr && !order->is_null()) {
    const std::string word = order->is_string() ? order->get<std::string>() : order->is_boolean() && order->get<bool>() ? "group" : "weight";
    out.order = word == "group" || word == "dynamic";
    if (!out.order && word != "weight" && word != "static") return unsupported(diag, where, "actorder " + escape(word)), false;
  }
  const std::string_view scale_dtype = string_at(a, "scale_dtype");
  ir::QuantType t;
  if (type == "float" && num_bits == 4 && (strategy == "tensor_group" || (strategy == "group" && group == 16))) {
    if (group != 16) return unsupported(diag, where, fmt::format("{} of {}", what(), group)), false;
    t = {.code = Elem::e2m1, .scale = ir::ScaleValues::e4m3, .block = {1, 16}};
  } else if (scale_dtype == "torch.uint8" && type == "float" && (num_bits == 4 || num_bits == 8) && strategy == "group" && group == 32) {
    t = {.code = num_bits == 4 ? Elem::e2m1 : Elem::e4m3, .scale = ir::ScaleValues::e8m0, .block = {1, 32}};
  } else if (scale_dtype != "torch.uint8" && ((type == "float" && num_bits == 8) || (type == "int" && num_bits >= 2 && num_bits <= 8 && strategy != "block"))) {
    t = {.code = type == "float" ? Elem::e4m3 : integer_of(num_bits), .scale = ir::ScaleValues::any};
    t.zero = symmetric ? ir::Zero::none : ir::Zero::code;
    if (strategy == "tensor")
      t.block = {0, 0};
    else if (strategy == "channel" || strategy == "token")
      t.block = {1, 0};
    else if (strategy == "group") {
      if (group < 1 || group > 65536)
        return invalid(diag, where, "group_size", find(a, "group_size") != nullptr ? *find(a, "group_size") : Json(), "1 to 65536"), false;
      t.block = {1, static_cast<int32_t>(group)};
    } else if (strategy == "block") {
      const Json* block = find(a, "block_structure");
      if (block == nullptr || !read_block(*block, t.block))
        return invalid(diag, where, "block_structure", block != nullptr ? *block : Json(), "[rows, columns]"), false;
    } else if (strategy == "attn_head") {
      out.per_head = true;
    } else {
      return invalid(diag, where, "strategy", *find(a, "strategy"), "tensor, channel, token, group, block, tensor_group or attn_head"), false;
    }
  } else {
    return unsupported(diag, where, what() + (scale_dtype == "torch.uint8" ? " with E8M0 scales" : "")), false;
  }
  out.type = t;
  return true;
}

bool is_null(const Json* v) {
  return v == nullptr || v->is_null();
}

// A scheme object of config_groups.
bool read_scheme(const Json& g, const std::string& where, ir::Scheme& out, Diagnostics& diag) {
  const Json* weights = find(g, "weights");
  const Json* input = find(g, "input_activations");
  const Json* output = find(g, "output_activations");
  if (is_null(weights)) return unsupported(diag, where, "a group without weights"), false;
  Args w;
  if (!read_args(*weights, where + ".weights", w, diag)) return false;
  if (w.per_head || w.local || w.when == ir::When::per_call) return unsupported(diag, where, "weights with run-time scales"), false;
  out.weight = *w.type;
  out.features.actorder = w.order;
  if (w.order && !(w.type->block.rows == 1 && w.type->block.cols > 0 && is_integer_code(w.type->code)))
    return unsupported(diag, where, "actorder of weights that are not integers in groups"), false;
  if (!is_null(output)) {
    Args o;
    if (!read_args(*output, where + ".output_activations", o, diag)) return false;
    out.features.output = ir::Activation{*o.type, o.when};
    if (o.per_head || o.local || o.order || o.when != ir::When::fixed || !(o.type->block == ir::Block{0, 0}) || ct_format(out).empty())
      return unsupported(diag, where, fmt::format("{} weights with {} output activations", to_string(out.weight), to_string(*out.features.output))), false;
  }
  if (is_null(input)) return true;
  Args a;
  if (!read_args(*input, where + ".input_activations", a, diag)) return false;
  if (a.per_head) return unsupported(diag, where, "activations per attention head"), false;
  // "local": the second level is in the file, the block scales are taken at run time.
  out.input = ir::Activation{*a.type, a.type->two_level() ? (a.when == ir::When::per_call ? ir::When::per_call : ir::When::fixed) : a.when};
  if (out.input->when == ir::When::fixed && !out.input->type.two_level() && !(out.input->type.block == ir::Block{0, 0}))
    return unsupported(diag, where, "static activation scales that are not per tensor"), false;
  const bool nonsense = a.order || (is_integer_code(out.input->type.code) && !is_integer_code(out.weight.code));
  if (nonsense || out.weight.two_level() != out.input->type.two_level())
    return unsupported(diag, where, fmt::format("{} weights with {} activations", to_string(out.weight), to_string(*out.input))), false;
  return true;
}

bool read_rules(const Json* list, const std::string& where, RegexCompiler regex, std::vector<NameRule>& out, Diagnostics& diag) {
  if (is_null(list)) return true;
  if (!list->is_array()) return invalid(diag, where, "", *list, "a list of names"), false;
  for (const Json& e : *list) {
    if (!e.is_string()) return invalid(diag, where, "", e, "a string"), false;
    Result<NameRule> rule = NameRule::compressed_tensors(e.get<std::string>(), regex);
    if (!rule) {
      diag.report("pattern-invalid", {.file = file}, fmt::format("{}: '{}': {}", where, escape(e.get_ref<const std::string&>()), rule.error().what),
                  "a regular expression");
      return false;
    }
    out.push_back(std::move(*rule));
  }
  return true;
}

bool read_group(const std::string& name, const Json& g, const CtConfig& config, RegexCompiler regex, CtGroup& out, Diagnostics& diag) {
  const std::string where = "config_groups." + escape(name);
  if (!g.is_object()) return invalid(diag, where, "", g, "an object with targets and weights"), false;
  out.name = name;
  out.format = std::string(string_at(g, "format"));
  if (out.format.empty() && config.format != "mixed-precision") out.format = config.format;
  constexpr std::array<std::string_view, 8> formats{"float-quantized", "naive-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized",
                                                    "mxfp8-quantized", "int-quantized",   "pack-quantized",       "dense"};
  if (!out.format.empty() && std::find(formats.begin(), formats.end(), out.format) == formats.end())
    return unsupported(diag, where, "format " + escape(out.format)), false;
  out.compressed = config.compressed && out.format != "dense";
  return read_scheme(g, where, out.scheme, diag) && read_rules(find(g, "targets"), where + ".targets", regex, out.targets, diag);
}

// A group of transform_config. What is done to attention's queries or to the KV cache has no place here, and permuted matrices none in any file that was seen.
bool read_transform(const std::string& name, const Json& g, RegexCompiler regex, CtConfig& out, Diagnostics& diag) {
  const std::string where = "transform_config." + escape(name);
  if (!g.is_object()) return invalid(diag, where, "", g, "an object with type and apply"), false;
  const std::string_view type = string_at(g, "type");
  if (type != "hadamard" && type != "random-hadamard" && type != "random-matrix")
    return unsupported(diag, where, fmt::format("transforms of type '{}'", escape(type))), false;
  const int64_t block = int_at(g, "head_dim", 0);
  if (block < 0 || block > 65536) return invalid(diag, where, "head_dim", *find(g, "head_dim"), "1 to 65536"), false;
  const Json* apply = find(g, "apply");
  if (apply == nullptr || !apply->is_array()) return invalid(diag, where, "apply", apply != nullptr ? *apply : Json(), "a list"), false;
  for (const Json& a : *apply) {
    if (!a.is_object()) return invalid(diag, where, "apply", a, "objects with targets and location"), false;
    const std::string_view location = string_at(a, "location");
    std::vector<NameRule> targets, ignore;
    if (!read_rules(find(a, "targets"), where + ".targets", regex, targets, diag) || !read_rules(find(a, "ignore"), where + ".ignore", regex, ignore, diag))
      return false;
    if (location == "weight_input" || location == "weight_output") {
      out.fused.push_back({name, std::move(targets), std::move(ignore)});
      continue;
    }
    if (location != "input" && location != "output") return unsupported(diag, where, fmt::format("a transform at '{}'", escape(location))), false;
    if (bool_at(g, "randomize", false)) return unsupported(diag, where, "randomize, which permutes the matrix"), false;
    out.transforms.push_back({.group = name,
                              .of_outputs = location == "output",
                              .inverse = bool_at(a, "inverse", false),
                              .hadamard = type != "random-matrix",
                              .block = block,
                              .targets = std::move(targets),
                              .ignore = std::move(ignore)});
  }
  return true;
}

// Parts of the config that change what the tensors mean.
bool read_extras(const Json& q, RegexCompiler regex, CtConfig& out, Diagnostics& diag) {
  if (const Json* sparsity = find(q, "sparsity_config"); sparsity != nullptr && sparsity->is_object() && !sparsity->empty()) {
    const std::string_view format = string_at(*sparsity, "format", "dense");
    if (format != "dense" && format != "sparse-24-bitmask" && format != "sparse-bitmask")
      return unsupported(diag, "sparsity_config", "format " + escape(format)), false;
    if (format != "dense") out.sparsity = std::string(format);
  }
  if (const Json* transform = find(q, "transform_config"); transform != nullptr && transform->is_object() && !transform->empty()) {
    const Json* groups = find(*transform, "config_groups");
    if (groups == nullptr || !groups->is_object()) return unsupported(diag, "transform_config", "no config_groups"), false;
    for (auto it = groups->begin(); it != groups->end(); ++it)
      if (!read_transform(it.key(), *it, regex, out, diag)) return false;
  }
  if (const Json* kv = find(q, "kv_cache_scheme"); !is_null(kv)) {
    Args a;
    if (!read_args(*kv, "kv_cache_scheme", a, diag)) return false;
    const ir::KvCache cache{.scheme = {*a.type, a.when}, .per_head = a.per_head};
    if (!ct_holds_kv(cache)) return unsupported(diag, "kv_cache_scheme", to_string(cache)), false;
    out.kv = cache;
  }
  return true;
}

}  // namespace

bool read_ct_config(const Json& q, RegexCompiler regex, CtConfig& out, Diagnostics& diag) {
  out.format = std::string(string_at(q, "format"));
  out.version = std::string(string_at(q, "version"));
  if (!read_extras(q, regex, out, diag)) return false;
  out.compressed = string_at(q, "quantization_status", "compressed") == "compressed";
  const Json* groups = find(q, "config_groups");
  if (!is_null(groups) && !groups->is_object()) return invalid(diag, "quantization_config", "config_groups", *groups, "an object"), false;
  if (!is_null(groups))
    for (auto it = groups->begin(); it != groups->end(); ++it) {
      CtGroup group;
      if (!read_group(it.key(), *it, out, regex, group, diag)) return false;
      out.groups.push_back(std::move(group));
    }
  std::vector<NameRule> targets;
  for (size_t i = 0; i < out.groups.size(); ++i)
    for (const NameRule& rule : out.groups[i].targets) {
      targets.push_back(rule);
      out.target_groups.push_back(i);
    }
  out.targets = RuleList(std::move(targets));
  return read_rules(find(q, "ignore"), "ignore", regex, out.ignore, diag);
}

bool ct_holds_kv(const ir::KvCache& kv) {
  const ir::QuantType& t = kv.scheme.type;
  return !kv.affine && kv.scheme.when == ir::When::fixed && t.scale == ir::ScaleValues::any && t.zero == ir::Zero::none && t.block == ir::Block{0, 0} &&
         (t.code == Elem::e4m3 || t.code == Elem::i8);
}

Json ct_kv_args(const ir::KvCache& kv) {
  Json j = ct_args(kv.scheme.type, &kv.scheme);
  if (kv.per_head) j["strategy"] = "attn_head";
  return j;
}

Json ct_args(const ir::QuantType& t, const ir::Activation* activation) {
  Json j = Json::object();
  const bool nvfp4 = t.two_level();
  const bool dynamic = activation != nullptr && activation->when == ir::When::per_call;
  j["actorder"] = nullptr;
  j["block_structure"] = t.block.rows > 1 ? Json::array({t.block.rows, t.block.cols}) : Json(nullptr);
  j["dynamic"] = activation != nullptr && nvfp4 && !dynamic ? Json("local") : Json(dynamic);
  j["group_size"] = t.block.rows == 1 && t.block.cols > 0 ? Json(t.block.cols) : Json(nullptr);
  j["num_bits"] = bits(t.code);
  j["observer"] = nullptr;
  j["observer_kwargs"] = Json::object();
  j["scale_dtype"] = nvfp4 ? Json("torch.float8_e4m3fn") : t.scale == ir::ScaleValues::e8m0 ? Json("torch.uint8") : Json(nullptr);
  j["strategy"] = nvfp4                        ? "tensor_group"
                  : t.block == ir::Block{0, 0} ? "tensor"
                  : t.block.rows > 1           ? "block"
                  : t.block.cols > 0           ? "group"
                  : activation != nullptr      ? "token"
                                               : "channel";
  j["symmetric"] = t.zero == ir::Zero::none;
  j["type"] = is_integer_code(t.code) ? "int" : "float";
  j["zp_dtype"] = t.zero == ir::Zero::none ? Json(nullptr) : Json("torch.int8");
  return j;
}

namespace {

bool holds_activation(const ir::Activation& a) {
  const ir::QuantType& t = a.type;
  if (t.scale != ir::ScaleValues::any || (t.code != Elem::e4m3 && !is_integer_code(t.code))) return false;
  return a.when == ir::When::fixed ? t.block == ir::Block{0, 0} : t.block.rows <= 1;
}

}  // namespace

std::string_view ct_format(const ir::Scheme& s) {
  ir::Features beyond = s.features;
  beyond.sparse24 = beyond.transform = false;  // how weights lie, and what transform_config says
  const bool bare = beyond == ir::Features{};
  beyond.output.reset();
  if (is_integer_code(s.weight.code)) {
    beyond.actorder = false;
    if (s.weight.scale != ir::ScaleValues::any || s.weight.block.rows > 1 || !(beyond == ir::Features{}) || (s.input && !holds_activation(*s.input))) return {};
    return s.input ? "int-quantized" : "pack-quantized";
  }
  if (!(beyond == ir::Features{}) || s.weight.zero != ir::Zero::none) return {};
  const auto fp8 = [](const ir::QuantType& t) { return t.code == Elem::e4m3 && t.scale == ir::ScaleValues::any && t.zero == ir::Zero::none; };
  if (s.weight.code == Elem::e2m1 && s.weight.two_level() && s.weight.block == ir::Block{1, 16} && bare)
    return !s.input || s.input->type == s.weight ? "nvfp4-pack-quantized" : "";
  if (s.weight.scale == ir::ScaleValues::e8m0 && s.weight.block == ir::Block{1, 32} && bare) {
    if (s.input && (!(s.input->type == s.weight) || s.input->when == ir::When::fixed || s.input->rounding != ir::Rounding::down)) return "";
    return s.weight.code == Elem::e2m1 ? "mxfp4-pack-quantized" : s.weight.code == Elem::e4m3 ? "mxfp8-quantized" : "";
  }
  if (!fp8(s.weight)) return {};
  if (!s.input) return "naive-quantized";
  if (!fp8(s.input->type)) return {};
  if (s.input->when == ir::When::fixed && !(s.input->type.block == ir::Block{0, 0})) return {};
  return s.input->type.block.rows > 1 ? "" : "float-quantized";
}

}  // namespace qb
