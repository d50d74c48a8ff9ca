// NVIDIA ModelOpt's unified Hugging Face export (nvidia-modelopt 0.23 to 0.47).
//
// Source of truth: what export_hf_checkpoint of 0.47 writes, byte for byte. Two documents carry the
// configuration: hf_quant_config.json, and quantization_config inside config.json since 0.31. The latter's config_groups look like compressed-tensors' but are
// not (activation flags and strategies are wrong there); they are never parsed.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/json.h"
#include "dialect/modelopt_config.h"
#include "dialect/register.h"
#include "dialect/row.h"

namespace qb {
namespace {

using ir::Role;
using ir::ScaleForm;

constexpr std::string_view spec = "nvidia-modelopt 0.47, modelopt.torch.export.export_hf_checkpoint";

// ---- schemes and how they are stored --------------------------------------------------------------------------------------------------------------------

constexpr ir::QuantType fp8(ir::Block block) {
  return {.code = Elem::e4m3, .scale = ir::ScaleValues::any, .block = block};
}
bool is_nvfp4(const ir::QuantType& t) {
  return t.code == Elem::e2m1 && t.two_level() && t.block.rows == 1 && t.block.cols > 0 && t.zero == ir::Zero::none;
}
bool bare(const ir::Scheme& s) {
  return s.features == ir::Features{};
}
const ir::Activation static_tensor{fp8({0, 0}), ir::When::fixed};
const ir::Activation token{fp8({1, 0}), ir::When::per_call};

bool holds_fp8(const ir::Scheme& s) noexcept {
  return bare(s) && s.weight == fp8({0, 0}) && (!s.input || *s.input == static_tensor);
}
bool holds_channel(const ir::Scheme& s) noexcept {
  return bare(s) && s.weight == fp8({1, 0}) && s.input == token;
}
bool holds_block(const ir::Scheme& s) noexcept {
  return bare(s) && s.weight == fp8({128, 128}) && !s.input;
}
bool holds_nvfp4(const ir::Scheme& s) noexcept {
  return bare(s) && is_nvfp4(s.weight) && s.input && is_nvfp4(s.input->type) && s.input->type.block == s.weight.block && s.input->when == ir::When::fixed;
}
bool holds_w4a16(const ir::Scheme& s) noexcept {
  return bare(s) && is_nvfp4(s.weight) && !s.input;
}

constexpr PartRow fp8_parts[] = {
    {Role::code, "weight", Elem::e4m3, Rank::matrix},
    {Role::scale, "weight_scale", Elem::f32, Rank::scalar0},
    {Role::input_scale, "input_scale", Elem::f32, Rank::scalar0},
};
constexpr PartRow channel_parts[] = {
    {Role::code, "weight", Elem::e4m3, Rank::matrix},
    {Role::scale, "weight_scale", Elem::f32, Rank::vector},
};
constexpr PartRow block_parts[] = {
    {Role::code, "weight", Elem::e4m3, Rank::matrix},
    {Role::scale, "weight_scale", Elem::f32, Rank::grid4},
};
constexpr PartRow block_real_parts[] = {
    {Role::code, "weight", Elem::e4m3, Rank::matrix},
    {Role::scale, "weight_scale", Elem::f32, Rank::grid},
};
constexpr PartRow nvfp4_parts[] = {
    {Role::code, "weight", Elem::u8, Rank::matrix},
    {Role::scale, "weight_scale", Elem::e4m3, Rank::grid},
    {Role::global, "weight_scale_2", Elem::f32, Rank::scalar0},
    {Role::input_scale, "input_scale", Elem::f32, Rank::scalar0},
};
constexpr PartRow w4a16_parts[] = {
    {Role::code, "weight", Elem::u8, Rank::matrix},
    {Role::scale, "weight_scale", Elem::e4m3, Rank::grid},
    {Role::global, "weight_scale_2", Elem::f32, Rank::scalar0},
};
// The label of a scheme is the first row that holds it.
constexpr Row rows[] = {
    {"FP8", holds_fp8, fp8_parts},           {"FP8_PER_CHANNEL_PER_TOKEN", holds_channel, channel_parts},
    {"fp8_pb_wo", holds_block, block_parts}, {"fp8_pb_real", holds_block, block_real_parts},
    {"NVFP4", holds_nvfp4, nvfp4_parts},     {"W4A16_NVFP4", holds_w4a16, w4a16_parts},
};

std::string upper(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return out;
}

const Row* row_by_label(std::string_view label) {
  for (const Row& r : rows)
    if (upper(r.label) == upper(label)) return &r;
  return nullptr;
}

// What a label means for one linear. `group` is the group size of NVFP4, `has_input` whether the model has static activation scales.
ir::Scheme scheme_of(const Row& row, int32_t group, bool has_input) {
  const ir::QuantType nvfp4{.code = Elem::e2m1, .scale = ir::ScaleValues::e4m3, .block = {1, group}};
  if (row.label == "FP8") return {.weight = fp8({0, 0}), .input = has_input ? std::optional(static_tensor) : std::nullopt};
  if (row.label == "FP8_PER_CHANNEL_PER_TOKEN") return {.weight = fp8({1, 0}), .input = token};
  if (row.label == "NVFP4") return {.weight = nvfp4, .input = ir::Activation{nvfp4, ir::When::fixed}};
  if (row.label == "W4A16_NVFP4") return {.weight = nvfp4};
  return {.weight = fp8({128, 128})};
}

// ---- reading --------------------------------------------------------------------------------------------------------------------------------------------

Match match(const Package& p) {
  const Json* config = p.document("config.json");
  const Json* quant = config != nullptr ? find(*config, "quantization_config") : nullptr;
  if (quant != nullptr && string_at(*quant, "quant_method") == "modelopt") return {Match::certain, "config.json: quant_method is modelopt"};
  if (p.document("hf_quant_config.json") != nullptr && (quant == nullptr || string_at(*quant, "quant_method").empty()))
    return {Match::certain, "hf_quant_config.json is there"};
  return {};
}

// The label among those that the documents give which fits the stored weights; the first where the weights say nothing.
const Row* settle_label(Reading& r, const ModelOptConfig& config) {
  std::vector<const Row*> named;
  for (const std::string& algo : config.algos) {
    const Row* row = row_by_label(algo);
    if (row != nullptr) {
      named.push_back(row);
      continue;
    }
    std::string known;
    for (const Row& k : rows) known += fmt::format("{}{}", known.empty() ? "" : ", ", k.label);
    r.diag.report("algorithm-unsupported", {.file = config.from}, fmt::format("quant_algo {}", escape(algo)), fmt::format("one of {}", known));
    return nullptr;
  }
  if (named.empty()) return nullptr;
  for (const Row* row : named)
    for (const ir::Module& m : r.out.modules)
      if (const TensorInfo* t = r.find(m, "weight"); t != nullptr && m.kind == arch::Kind::linear && t->dtype == row->parts[0].container) return row;
  return named.front();
}

// Groups as the stored scales have them; `declared` where they say nothing.
int32_t settle_group(Reading& r, const ModelOptConfig& config, const Row& row) {
  const int32_t declared = config.groups.empty() ? 16 : static_cast<int32_t>(config.groups.front());
  if (row.parts[0].container != Elem::u8) return declared;
  for (const ir::Module& m : r.out.modules) {
    const TensorInfo* w = r.find(m, "weight");
    const TensorInfo* s = r.find(m, "weight_scale");
    if (w == nullptr || s == nullptr || w->dtype != Elem::u8 || s->dtype != Elem::e4m3 || w->shape.size() != 2 || s->shape.size() != 2) continue;
    const int64_t k = w->shape[1] * 2, columns = s->shape[1];
    if (columns <= 0 || k % columns != 0 || k / columns < 8 || k / columns > 256) continue;
    const auto group = static_cast<int32_t>(k / columns);
    if (std::find(config.groups.begin(), config.groups.end(), group) == config.groups.end() && (!config.groups.empty() || group != 16))
      r.diag.report("group-size-mismatch", {.file = config.from, .tensor = s->name, .module = m.path}, fmt::format("group_size {}", declared),
                    fmt::format("{}: a row of {} weights has {} scales", group, k, columns));
    return group;
  }
  return declared;
}

// A linear or an embedding whose tensors are there: plain or by the model's row, and whether the lists agree.
void read_weight(Reading& r, const ModelOptConfig& config, const Row* row, int32_t group, bool has_input, ir::Module& m) {
  const TensorInfo* weight = r.find(m, "weight");
  const NameRule* rule = r.excluded_by(m);
  const bool scaled = r.find(m, "weight_scale") != nullptr;
  if (weight != nullptr && !scaled && r.read_plain(m)) {
    if (row == nullptr)
      m.why = "the model's linears are not quantized";
    else if (rule != nullptr)
      m.why = fmt::format("{}: '{}'", config.from, rule->text());
    else if (m.kind == arch::Kind::embedding)
      m.why = "embeddings are not quantized unless they have scales";
    else
      m.why = r.report_unlisted(m);
  } else if (row != nullptr) {
    m.scheme = scheme_of(*row, group, has_input && m.kind == arch::Kind::linear);
    m.why = fmt::format("{}: quant_algo {}", config.from, row->label);
    if (rule != nullptr) {
      r.diag.report("excluded-but-quantized", {.file = config.from, .tensor = weight != nullptr ? weight->name : m.path, .module = m.path},
                    fmt::format("quantized, and excluded by '{}'", rule->text()), "one of the two; the tensors decide");
      m.why += fmt::format(", although '{}' excludes it", rule->text());
    }
    const bool usable = read_row(r, *row, m);
    if (!usable && weight == nullptr)
      for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
    if (m.kind == arch::Kind::embedding && r.out.topology.tied_embeddings)
      r.diag.report("tied-embedding-quantized", {.file = "config.json", .tensor = weight != nullptr ? weight->name : "", .module = m.path},
                    "a quantized embedding table that is also the head", "engines that apply its scale in both places");
    // A scale that weight-only schemes have no use for is kept out, and said.
    if (const TensorInfo* t = r.find(m, "input_scale"); t != nullptr && !r.claimed(*t)) {
      r.claim(*t);
      r.diag.report("input-scale-unused", {.file = r.context.package.file_name(t->file), .tensor = t->name, .module = m.path}, "an input_scale",
                    fmt::format("none: {} has no quantized activations", row->label));
    }
  }
  if (const TensorInfo* t = r.find(m, "pre_quant_scale"); t != nullptr) {
    r.claim(*t);
    r.diag.report("prescale-unexpected", {.file = r.context.package.file_name(t->file), .tensor = t->name, .module = m.path}, "a pre_quant_scale",
                  fmt::format("none: {} does not scale inputs", row != nullptr ? row->label : "an unquantized model"));
  }
  r.read_bias(m);
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  ModelOptConfig config;
  const bool config_ok = read_modelopt_config(context.package, config, diag);
  if (!config_ok || !r.begin()) return false;
  out.dialect = "modelopt";
  out.producer = config.producer;
  const Row* row = settle_label(r, config);
  if (row == nullptr && !config.algos.empty()) return false;
  if (config.algos.size() > 1)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, fmt::format("{} there, {} in config.json", config.algos[0], config.algos[1]),
                fmt::format("{} in both: the tensors are {}", row->label, info(row->parts[0].container).safetensors));
  out.quant_algo = row != nullptr ? std::string(row->label) : "";
  if (config.groups.size() > 1)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, fmt::format("group_size {} there, {} in config.json", config.groups[0], config.groups[1]),
                "one group size: the scales decide");
  for (const std::string& kv : config.kv)
    if (upper(kv) != "FP8") {
      diag.report("algorithm-unsupported", {.file = config.from}, fmt::format("KV-cache algorithm {}", escape(kv)), "FP8 or none");
      return false;
    }
  std::vector<NameRule> excludes;
  for (const std::string& e : config.excludes) excludes.push_back(*NameRule::shell(e));
  r.set_rules(std::move(excludes), config.from);
  bool has_input = false;
  for (const ir::Module& m : out.modules) has_input |= m.kind == arch::Kind::linear && r.find(m, "input_scale") != nullptr;
  const int32_t group = row != nullptr ? settle_group(r, config, *row) : 16;
  // KV scales first: they lie under the projections' names.
  r.read_kv_scales(Reading::KvNames::projection, !config.kv.empty(), config.from);
  if (config.kv_disagrees)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, "a KV-cache algorithm in one of the two documents only",
                "the same in both: the scales decide");
  r.read_modules([&](ir::Module& m) { read_weight(r, config, row, group, has_input, m); });
  return true;
}

// ---- writing --------------------------------------------------------------------------------------------------------------------------------------------

// The scheme as this dialect can say it; nothing when it cannot. Block FP8 labels say nothing about activations: engines take them per group at run time.
std::optional<ir::Scheme> express(const ir::Scheme& s) {
  if (row_for(rows, s) != nullptr) return s;
  ir::Scheme weight_only = s;
  weight_only.input.reset();
  const ir::Activation groups{fp8({1, 128}), ir::When::per_call};
  if (holds_block(weight_only) && s.input == groups) return weight_only;
  return std::nullopt;
}

bool write(const ir::Checkpoint& in, const WriteContext& context, Export& out, Diagnostics& diag) {
  ir::Checkpoint c = in;
  std::map<std::string, std::vector<std::string>> by_scheme, changed;
  for (ir::Module& m : c.modules) {
    if (!m.scheme) continue;
    const std::string before = to_string(*m.scheme);
    const std::optional<ir::Scheme> said = express(*m.scheme);
    if (!said || m.kind != arch::Kind::linear) {
      diag.report("scheme-inexpressible", {.module = m.path}, fmt::format("{}{}", before, m.kind == arch::Kind::linear ? "" : " on an embedding"),
                  "a scheme that ModelOpt has a name for (compressed_tensors may take it)");
      continue;
    }
    if (!(*said == *m.scheme)) changed[before].push_back(m.path);
    m.scheme = said;
    by_scheme[to_string(*said)].push_back(m.path);
  }
  if (by_scheme.size() > 1) {
    std::string list;
    for (const auto& [scheme, modules] : by_scheme)
      list += fmt::format("{}{} ({} modules, {}, ...)", list.empty() ? "" : "; ", scheme, modules.size(), modules.front());
    diag.report("scheme-inexpressible", {}, list, "one scheme for all linears: MIXED_PRECISION is not written yet (compressed_tensors takes several)");
  }
  if (c.kv && !(c.kv->scheme == static_tensor)) diag.report("scheme-inexpressible", {}, "kv:" + to_string(c.kv->scheme), "kv:fp8_tensor_static");
  if (!diag.ok()) return false;
  note_producer(c, out);
  for (const auto& [before, modules] : changed) {
    out.scheme_changes.push_back(
        {modules, before, to_string(*express(*ir::parse_scheme(before))), "ModelOpt's block FP8 label does not say how activations are quantized"});
    out.origin.document["scheme"] = before;
  }
  const ir::Module* first = nullptr;
  for (const ir::Module& m : c.modules)
    if (m.scheme && first == nullptr) first = &m;
  const Row* row = first != nullptr ? row_for(rows, *first->scheme) : nullptr;
  const Origin origin = context.restore_origin ? read_origin(context.package) : Origin{};
  if (auto it = origin.document.find("label"); row != nullptr && it != origin.document.end())
    if (const Row* named = row_by_label(it->second); named != nullptr && named->holds(*first->scheme)) row = named;
  for (const ir::Module& m : c.modules) {
    if (m.scheme) {
      write_row(*row, m, context, out);
      continue;
    }
    for (const ir::Stored& s : m.parts) {
      if (s.role != Role::k_scale && s.role != Role::v_scale) {
        write_plain(s, out);
        continue;
      }
      if (context.restore_origin && parse_origin_entry(s.origin).absent && s.value == 1.0) continue;  // the producer wrote none; 1 is its default
      const bool k = s.role == Role::k_scale;
      write_stored(s, {.name = m.path + (k ? ".k_proj.k_scale" : ".v_proj.v_scale"), .dtype = Elem::f32, .shape = {}}, context, out);
    }
  }
  ModelOptDocuments documents{
      .row_label = row != nullptr ? std::string(row->label) : "", .scheme = first != nullptr ? first->scheme : std::nullopt, .kv = c.kv.has_value()};
  if (auto it = origin.document.find("producer_version"); it != origin.document.end()) documents.producer_version = it->second;
  for (const ir::Module& m : c.modules)
    if ((m.kind == arch::Kind::linear || m.kind == arch::Kind::embedding) && !m.scheme) documents.excludes.push_back(m.path);
  write_modelopt_documents(context.package, documents, out);
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(modelopt) = {
    .name = "modelopt", .spec = spec, .match = match, .read = read, .write = write};
// clang-format on

}  // namespace qb
