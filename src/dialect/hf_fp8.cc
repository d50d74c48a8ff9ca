// Hugging Face "fp8": DeepSeek's and Qwen's releases, transformers' FineGrainedFP8Config, and the per-tensor files of AutoFP8 that vLLM reads.
//
// Source of truth: transformers 5.17 (what it writes and loads) and the releases' own files. The block size comes from the config, never from shapes: partial
// blocks are legal. `weight_scale_inv` multiplies, its name notwithstanding. Activations are quantized while running: in blocks for each token and group of a
// block's width, by tensor for each token, unless the config says static. `scale_fmt: ue8m0` makes the scales of activations powers of two.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/json.h"
#include "dialect/documents.h"
#include "dialect/register.h"
#include "dialect/row.h"

namespace qb {
namespace {

using ir::Role;

constexpr const char* file = "config.json";
constexpr std::string_view spec = "transformers 5.17 FineGrainedFP8Config; DeepSeek-V3's release";

// ---- schemes and how they are stored --------------------------------------------------------------------------------------------------------------------

constexpr ir::QuantType fp8(ir::Block block, ir::ScaleValues scale = ir::ScaleValues::any) {
  return {.code = Elem::e4m3, .scale = scale, .block = block};
}
const ir::Activation static_tensor{fp8({0, 0}), ir::When::fixed};
const ir::Activation token{fp8({1, 0}), ir::When::per_call};

bool is_block(const ir::Scheme& s) noexcept {
  const ir::Block b = s.weight.block;
  if (s.features != ir::Features{} || s.weight != fp8(b) || b.rows < 2 || b.cols < 2 || !s.input || s.input->when != ir::When::per_call) return false;
  return s.input->type == fp8({1, b.cols}) || s.input->type == fp8({1, b.cols}, ir::ScaleValues::e8m0);
}
bool is_tensor(const ir::Scheme& s) noexcept {
  return s.features == ir::Features{} && s.weight == fp8({0, 0}) && (s.input == static_tensor || s.input == token);
}

constexpr PartRow code{Role::code, "weight", Elem::e4m3, Rank::matrix};
constexpr PartRow block_parts[] = {
    code,
    {.role = Role::scale, .suffix = "weight_scale_inv", .container = Elem::f32, .rank = Rank::grid, .any_float = true},
};
constexpr PartRow tensor_parts[] = {
    code,
    {.role = Role::scale, .suffix = "weight_scale_inv", .container = Elem::f32, .rank = Rank::scalar0, .any_float = true},
    {.role = Role::input_scale, .suffix = "activation_scale", .container = Elem::f32, .rank = Rank::scalar0, .any_float = true},
};
constexpr PartRow autofp8_parts[] = {
    code,
    {.role = Role::scale, .suffix = "weight_scale", .container = Elem::f32, .rank = Rank::scalar0, .any_float = true},
    {.role = Role::input_scale, .suffix = "input_scale", .container = Elem::f32, .rank = Rank::scalar0, .any_float = true},
};
// Both ways to store a tensor-wide scale mean the same; transformers' is written unless the source had the other.
constexpr Row rows[] = {
    {"fp8", is_block, block_parts},
    {"fp8", is_tensor, tensor_parts},
};
// Tiles whose scales have the name of tensor-wide ones: both are multiplied.
constexpr PartRow renamed_parts[] = {
    code,
    {.role = Role::scale, .suffix = "weight_scale", .container = Elem::f32, .rank = Rank::grid, .any_float = true},
};
constexpr Row renamed{"fp8", is_block, renamed_parts};
constexpr Row autofp8{"fp8 (weight_scale)", is_tensor, autofp8_parts};

// ---- reading --------------------------------------------------------------------------------------------------------------------------------------------

Match match(const Package& p) {
  return match_quant_method(p, "fp8");
}

struct Config {
  ir::Scheme scheme;
  std::vector<NameRule> excludes;
};

void invalid(Diagnostics& diag, std::string_view key, const Json& value, std::string expected) {
  diag.report("config-invalid", {.file = file}, fmt::format("quantization_config.{} is {}", key, dump_json(value, -1).substr(0, 80)), std::move(expected));
}

// Sizes from 2 to 65536, so that no arithmetic on them can overflow and a tile is no row or column.
bool read_block(const Json& q, ir::Block& block, Diagnostics& diag) {
  const Json* b = find(q, "weight_block_size");
  if (b == nullptr || b->is_null()) return true;
  int32_t sizes[2] = {};
  bool ok = b->is_array() && b->size() == 2;
  for (size_t i = 0; ok && i < 2; ++i) {
    ok = (*b)[i].is_number_integer() && (*b)[i].get<int64_t>() >= 2 && (*b)[i].get<int64_t>() <= 65536;
    if (ok) sizes[i] = (*b)[i].get<int32_t>();
  }
  if (!ok) {
    invalid(diag, "weight_block_size", *b, "null, or two whole numbers from 2 to 65536");
    return false;
  }
  block = {sizes[0], sizes[1]};
  return true;
}

bool read_config(const Json& q, RegexCompiler regex, Config& out, Diagnostics& diag) {
  ir::Block block;
  bool ok = read_block(q, block, diag);
  const std::string_view fmt = string_at(q, "fmt", "e4m3"), activations = string_at(q, "activation_scheme", "dynamic");
  const std::string_view scale_fmt = string_at(q, "scale_fmt", "float");
  const auto unsupported = [&](std::string what, std::string expected) {
    diag.report("algorithm-unsupported", {.file = file}, std::move(what), std::move(expected));
    ok = false;
  };
  if (fmt != "e4m3") unsupported(fmt::format("fmt {}", escape(fmt)), "e4m3");
  if (activations != "dynamic" && activations != "static") unsupported(fmt::format("activation_scheme {}", escape(activations)), "dynamic or static");
  if (scale_fmt != "float" && scale_fmt != "ue8m0") unsupported(fmt::format("scale_fmt {}", escape(scale_fmt)), "float or ue8m0");
  const bool tensor = block == ir::Block{0, 0};
  if (!tensor && activations == "static") unsupported("static activation scales with weight_block_size", "dynamic activations: static ones have no block");
  out.scheme.weight = fp8(block);
  if (!tensor)
    out.scheme.input = {fp8({1, block.cols}, scale_fmt == "ue8m0" ? ir::ScaleValues::e8m0 : ir::ScaleValues::any), ir::When::per_call};
  else
    out.scheme.input = activations == "static" ? static_tensor : token;
  for (const char* key : {"modules_to_not_convert", "ignored_layers"}) {
    const Json* list = find(q, key);
    if (list == nullptr || list->is_null()) continue;
    if (!list->is_array() || !std::all_of(list->begin(), list->end(), [](const Json& e) { return e.is_string(); })) {
      invalid(diag, key, *list, "a list of module names");
      ok = false;
      continue;
    }
    for (const Json& e : *list) out.excludes.push_back(NameRule::transformers(e.get<std::string>(), regex));
  }
  return ok;
}

void read_weight(Reading& r, const Config& config, const Row& row, ir::Module& m) {
  const TensorInfo* weight = r.find(m, "weight");
  const NameRule* rule = r.excluded_by(m);
  const bool coded = weight != nullptr && weight->dtype == Elem::e4m3;
  if (weight != nullptr && !coded && r.find(m, row.parts[1].suffix) == nullptr && r.read_plain(m)) {
    m.why = r.why_plain(m, rule);
  } else {
    m.scheme = config.scheme;
    m.why = r.why_quantized(m, rule, fmt::format("{}: quant_method fp8", file));
    const TensorInfo* other = r.find(m, "weight_scale");
    const bool misnamed = is_block(config.scheme) && other != nullptr && r.find(m, "weight_scale_inv") == nullptr;
    if (misnamed)
      r.diag.report("scale-name", {.file = r.context.package.file_name(other->file), .tensor = other->name, .module = m.path}, "weight_scale",
                    "weight_scale_inv; both are multiplied");
    if (!read_row(r, misnamed ? renamed : row, m))
      for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
    r.report_tied_embedding(m);
  }
  r.read_bias(m);
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  Config config;
  const bool config_ok = read_config(*quantization_config(context.package), context.regex, config, diag);
  if (!config_ok || !r.begin()) return false;
  out.dialect = "hf_fp8";
  const Row* row = row_for(rows, config.scheme);
  if (is_tensor(config.scheme) &&
      std::any_of(out.modules.begin(), out.modules.end(), [&](const ir::Module& m) { return r.find(m, "weight_scale") != nullptr; }))
    row = &autofp8;
  out.quant_algo = row->label;
  r.set_rules(std::move(config.excludes), file);
  r.read_kv_scales(Reading::KvNames::attention, std::nullopt, file);
  r.read_modules([&](ir::Module& m) { read_weight(r, config, *row, m); });
  return true;
}

// ---- writing --------------------------------------------------------------------------------------------------------------------------------------------

Json quantization_of(const ir::Scheme& s, const std::vector<std::string>& excludes) {
  Json q = Json::object();
  q["activation_scheme"] = s.input->when == ir::When::fixed ? "static" : "dynamic";
  q["fmt"] = "e4m3";
  q["modules_to_not_convert"] = excludes;
  q["quant_method"] = "fp8";
  if (s.input->type.scale == ir::ScaleValues::e8m0) q["scale_fmt"] = "ue8m0";
  q["weight_block_size"] = is_block(s) ? Json::array({s.weight.block.rows, s.weight.block.cols}) : Json(nullptr);
  return q;
}

bool write(const ir::Checkpoint& in, const WriteContext& context, Export& out, Diagnostics& diag) {
  ir::Checkpoint c = in;
  const Origin origin = context.restore_origin ? read_origin(context.package) : Origin{};
  const std::vector<ir::Scheme> noted = noted_schemes(origin);
  std::map<std::string, std::vector<std::string>> by_scheme;
  for (ir::Module& m : c.modules) {
    if (!m.scheme) continue;
    m.scheme = as_noted(noted, *m.scheme);
    if (row_for(rows, *m.scheme) == nullptr || m.kind != arch::Kind::linear)
      diag.report("scheme-inexpressible", {.module = m.path},
                  fmt::format("{}{}", to_string(*m.scheme),
                              m.kind == arch::Kind::linear   ? ""
                              : m.kind == arch::Kind::expert ? " on stacked experts"
                                                             : " on an embedding"),
                  "FP8 in tiles with activations in groups of a tile's width, or FP8 by tensor with static or per-token activations");
    by_scheme[to_string(*m.scheme)].push_back(m.path);
  }
  if (by_scheme.size() > 1) {
    std::string list;
    for (const auto& [scheme, modules] : by_scheme) list += fmt::format("{}{} ({}, ...)", list.empty() ? "" : "; ", scheme, modules.front());
    diag.report("scheme-inexpressible", {}, list, "one scheme for all linears");
  }
  if (c.kv) diag.report("scheme-inexpressible", {}, to_string(*c.kv), "no KV-cache scales: this format has no place for them");
  if (!diag.ok()) return false;
  note_producer(c, out);
  std::vector<std::string> excludes;
  const Row* row = nullptr;
  std::optional<ir::Scheme> scheme;
  for (const ir::Module& m : c.modules) {
    if (m.scheme && row == nullptr) scheme = m.scheme, row = row_for(rows, *m.scheme);
    if (!m.scheme && m.kind == arch::Kind::linear) excludes.push_back(m.path);
  }
  if (auto it = origin.document.find("label"); scheme && is_tensor(*scheme) && it != origin.document.end() && it->second == autofp8.label) row = &autofp8;
  for (const ir::Module& m : c.modules) {
    if (m.scheme) {
      write_row(*row, m, context, out);
    } else {
      for (const ir::Stored& s : m.parts) write_plain(s, out);
    }
  }
  Json config = plain_config(context.package);
  if (scheme) config["quantization_config"] = quantization_of(*scheme, excludes);
  out.documents.emplace_back(file, std::make_shared<Json>(std::move(config)));
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(hf_fp8) = {
    .name = "hf_fp8", .spec = spec, .match = match, .read = read, .write = write};
// clang-format on

}  // namespace qb
