// NVIDIA ModelOpt's unified Hugging Face export (nvidia-modelopt 0.23 to 0.47): reading. Writing is in modelopt_write.cc.
//
// Source of truth: what export_hf_checkpoint of 0.47 writes, byte for byte. Two documents carry the
// configuration: hf_quant_config.json, and quantization_config inside config.json since 0.31. The latter's config_groups look like compressed-tensors' but are
// not (activation flags and strategies are wrong there); they are never parsed. Labels leave things open (whether activations have scales, which of two
// packings integers have, which inputs are scaled first, whether groups are said at all); the tensors settle them.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/json.h"
#include "dialect/modelopt_config.h"
#include "dialect/modelopt_prescales.h"
#include "dialect/modelopt_stacks.h"
#include "dialect/modelopt_write.h"
#include "dialect/register.h"

namespace qb {
namespace {

using ir::Role;
using modelopt::Algorithm;

constexpr std::string_view spec = "nvidia-modelopt 0.47, modelopt.torch.export.export_hf_checkpoint";

Match match(const Package& p) {
  const Json* config = p.document("config.json");
  const Json* quant = config != nullptr ? find(*config, "quantization_config") : nullptr;
  if (quant != nullptr && string_at(*quant, "quant_method") == "modelopt") return {Match::certain, "config.json: quant_method is modelopt"};
  if (p.document("hf_quant_config.json") != nullptr && (quant == nullptr || string_at(*quant, "quant_method").empty()))
    return {Match::certain, "hf_quant_config.json is there"};
  return {};
}

bool has_codes(const Reading& r, const ir::Module& m) {
  return r.find(m, "weight_scale") != nullptr || r.find(m, "weight_scale_inv") != nullptr;
}

// Whether the module's tensors are stored as the row says, as far as dtypes and packing show.
bool fits(const Reading& r, const Row& row, const ir::Module& m) {
  const TensorInfo* code = r.find(m, "weight");
  const PartRow& scale_row = row.parts[1];
  const TensorInfo* scale = r.find(m, scale_row.suffix);
  if (code == nullptr || code->dtype != row.parts[0].container) return false;
  if (scale == nullptr) return true;  // reported later
  const bool bytes = scale->dtype == Elem::u8 || scale->dtype == Elem::e8m0;
  if (bytes != (scale_row.form == ir::ScaleForm::exponent)) return false;
  if ((scale->dtype == Elem::e4m3) != (scale_row.container == Elem::e4m3)) return false;
  const bool pairs = row.parts[0].packing == Packing::row_pairs, nibbles = pairs || row.parts[0].packing == Packing::high_first;
  return !nibbles || code->shape.empty() || scale->shape.empty() || scale->shape[0] == (pairs ? 2 : 1) * code->shape[0];
}

// Columns that the row's codes have.
int64_t columns_of(const Row& row, const TensorInfo& code) {
  if (code.shape.size() != 2) return 0;
  const Elem elem = modelopt::meaning_of(row).weight.code;
  return row.parts[0].packing == Packing::row_pairs ? code.shape[1] : code.shape[1] * bits(code.dtype) / bits(elem);
}

// Whether the number of scales is also the row's.
bool fits_grid(const Reading& r, const Row& row, const ir::Module& m) {
  const TensorInfo* code = r.find(m, "weight");
  const TensorInfo* scale = r.find(m, row.parts[1].suffix);
  if (!fits(r, row, m) || scale == nullptr || code->shape.size() != 2) return false;
  const ir::Block block = modelopt::meaning_of(row).weight.block;
  const int64_t n = code->shape[0] * (row.parts[0].packing == Packing::row_pairs ? 2 : 1), k = columns_of(row, *code);
  if (block.rows == 0) return scale->elements() == 1;
  if (block.rows > 1) return scale->elements() == (n + block.rows - 1) / block.rows * ((k + block.cols - 1) / block.cols);
  return block.cols == 0 ? scale->elements() == n : scale->shape.size() == 2 && scale->shape[0] == n;
}

// One label of the documents, with the group size that stands beside it.
struct Label {
  std::string_view name;
  std::vector<int64_t> declared;  // group sizes; empty: not said
  std::string why;
  bool has_input = false, stacks_have_input = false;  // linears, or stacked experts, of this label have static activation scales
  int32_t group = 0;                                  // settled
};

// Gives every module the label that the documents have for it, or another one that its tensors fit.
class Labels {
 public:
  Labels(Reading& r, const ModelOptConfig& config) : r_(r), config_(config), of_(r.out.modules.size(), nullptr) {}

  // False after a report: a label is not known.
  bool settle() {
    if (config_.mixed) {
      for (const auto& [name, layer] : config_.layers)
        if (add(layer.algo, layer.group > 0 ? std::vector{layer.group} : std::vector<int64_t>{}) == nullptr) return false;
    } else if (!config_.algos.empty()) {
      std::vector<Label*> named;
      for (const std::string& algo : config_.algos) {
        named.push_back(add(algo, config_.groups));
        if (named.back() == nullptr) return false;
      }
      choose(named);
    }
    if (config_.mixed && config_.layers.empty())
      r_.diag.report("layers-missing", {.file = config_.from}, "quant_algo MIXED_PRECISION, no quantized_layers", "the algorithm of each quantized module");
    for (const ir::Module& m : r_.out.modules) {
      const bool stack = m.kind == arch::Kind::expert;
      if (m.kind != arch::Kind::linear && m.kind != arch::Kind::embedding && !stack) continue;
      Label* label = stack ? said_of(m) : assign(m);
      of_[static_cast<size_t>(m.topology)] = label;
      if (label == nullptr || r_.find(m, "input_scale") == nullptr) continue;
      label->has_input |= m.kind == arch::Kind::linear;
      label->stacks_have_input |= stack;
    }
    for (auto& [key, label] : labels_) settle_group(label);
    return true;
  }

  // Null where neither the documents nor its tensors give it one.
  const Label* of(const ir::Module& m) const { return of_[static_cast<size_t>(m.topology)]; }
  std::string_view name() const { return config_.mixed ? "MIXED_PRECISION" : single_ != nullptr ? single_->name : std::string_view(); }

  // The row by which the module is stored.
  const Row& row_of(const Label& label, const ir::Module& m) const {
    const std::span<const Row> candidates = modelopt::rows_of(label.name);
    const Row* best = nullptr;
    for (const Row& row : candidates) {
      const ir::Scheme meant = modelopt::meaning_of(row);
      const bool fixed = meant.input && meant.input->when == ir::When::fixed;
      if (!fits(r_, row, m)) continue;
      if (fixed == label.has_input) return row;
      if (best == nullptr) best = &row;
    }
    return best != nullptr ? *best : candidates.front();
  }

 private:
  // Null after a report.
  Label* add(std::string_view algo, std::vector<int64_t> groups) {
    const std::string_view name = modelopt::canonical_label(algo);
    if (name.empty()) {
      r_.diag.report("algorithm-unsupported", {.file = config_.from}, fmt::format("quant_algo {}", escape(algo)),
                     fmt::format("one of {}", modelopt::known_labels()));
      return nullptr;
    }
    const int64_t group = config_.mixed && !groups.empty() ? groups.front() : 0;
    const auto [it, fresh] = labels_.try_emplace({std::string(name), group});
    Label& label = it->second;
    if (!fresh) return &label;
    label.name = name;
    label.declared = std::move(groups);
    label.why = fmt::format("{}: {} {}", config_.from, config_.mixed ? "quantized_layers" : "quant_algo", name);
    return &label;
  }

  // Of the labels that two documents give, the one that fits the stored weights; the first where the weights say nothing.
  void choose(const std::vector<Label*>& named) {
    single_ = named.front();
    for (Label* label : named)
      for (const Row& row : modelopt::rows_of(label->name))
        for (const ir::Module& m : r_.out.modules)
          if (m.kind == arch::Kind::linear && has_codes(r_, m) && fits(r_, row, m)) {
            single_ = label;
            return;
          }
  }

  Label* said_of(const ir::Module& m) {
    const ModelOptConfig::Layer* layer = config_.mixed ? find_layer(m.path) : nullptr;
    return layer != nullptr ? &labels_.at({std::string(modelopt::canonical_label(layer->algo)), layer->group}) : single_;
  }

  Label* assign(const ir::Module& m) {
    Label* said = said_of(m);
    if (!has_codes(r_, m) || r_.find(m, "weight") == nullptr || (said == nullptr && !config_.mixed)) return said;
    if (said != nullptr)
      for (const Row& row : modelopt::rows_of(said->name))
        if (fits(r_, row, m)) return said;
    for (const Row& row : modelopt::rows()) {
      if (!fits_grid(r_, row, m)) continue;
      Label* shown = add(row.label, {});
      const Place place{.file = config_.from, .tensor = r_.find(m, "weight")->name, .module = m.path};
      if (said != nullptr)
        r_.diag.report("algorithm-mismatch", place, std::string(said->name), fmt::format("{}, as the tensors are stored", row.label));
      else if (!config_.layers.empty())
        r_.diag.report("targets-miss", place, "quantized, and quantized_layers does not list it", "an entry for each quantized module");
      return shown;
    }
    return said;
  }

  // A module by its own name, then by its parents'; engines know the same module with and without the prefixes of multimodal models.
  const ModelOptConfig::Layer* find_layer(std::string_view path) const {
    constexpr std::pair<std::string_view, std::string_view> spellings[] = {{"", ""},
                                                                           {"language_model.model.", "model.language_model."},
                                                                           {"model.language_model.", "language_model.model."},
                                                                           {"language_model.lm_head", "lm_head"}};
    for (const auto& [from, to] : spellings) {
      if (!path.starts_with(from)) continue;
      std::string name = std::string(to) + std::string(path.substr(from.size()));
      while (!name.empty()) {
        if (const auto it = config_.layers.find(name); it != config_.layers.end()) return &it->second;
        const size_t dot = name.rfind('.');
        name.resize(dot == name.npos ? 0 : dot);
      }
    }
    return nullptr;
  }

  // Groups as the stored scales have them; what is declared where they say nothing.
  void settle_group(Label& label) {
    const ir::QuantType usual = modelopt::meaning_of(modelopt::rows_of(label.name).front()).weight;
    label.group = label.declared.empty() ? usual.block.cols : static_cast<int32_t>(label.declared.front());
    if (usual.block.rows != 1 || usual.block.cols == 0) return;
    if (usual.scale == ir::ScaleValues::e8m0) {
      label.group = usual.block.cols;
      return;
    }
    for (const ir::Module& m : r_.out.modules) {
      const TensorInfo* code = r_.find(m, "weight");
      const TensorInfo* scale = r_.find(m, "weight_scale");
      if (code == nullptr || scale == nullptr || scale->shape.size() != 2 || of(m) != &label) continue;
      const Row& row = row_of(label, m);
      const int64_t k = fits(r_, row, m) ? columns_of(row, *code) : 0, columns = scale->shape[1];
      if (k <= 0 || columns <= 0 || k % columns != 0 || k / columns < 8 || k / columns > 65536) continue;
      // One column of scales says little: the row may be shorter than a group.
      const auto group = static_cast<int32_t>(k / columns);
      if (columns == 1 && !label.declared.empty() && group <= label.declared.front()) continue;
      const bool declared = std::find(label.declared.begin(), label.declared.end(), group) != label.declared.end();
      if (!declared && !label.declared.empty())
        r_.diag.report("group-size-mismatch", {.file = config_.from, .tensor = scale->name, .module = m.path}, fmt::format("group_size {}", label.group),
                       fmt::format("{}: a row of {} weights has {} scales", group, k, columns));
      label.group = group;
      return;
    }
  }

  Reading& r_;
  const ModelOptConfig& config_;
  std::map<std::pair<std::string, int64_t>, Label> labels_;
  Label* single_ = nullptr;
  std::vector<Label*> of_;  // by module
};

ir::Scheme scheme_of(const Reading& r, const Label& label, const Row& row, const ir::Module& m) {
  ir::Scheme s = modelopt::meaning_of(row);
  const Algorithm& a = modelopt::algorithm_of(row);
  if (s.weight.block.rows == 1 && s.weight.block.cols > 0) s.weight.block.cols = label.group;
  if (s.input && s.input->type.two_level()) s.input->type.block = s.weight.block;
  if (m.kind == arch::Kind::embedding) s.input.reset();
  s.features.prescale = a.prescale && r.find(m, "pre_quant_scale") != nullptr;
  if (a.lowrank)
    for (const PartRow& part : row.parts)
      if (const TensorInfo* t = part.role == Role::lowrank_a ? r.find(m, part.suffix) : nullptr; t != nullptr && t->shape.size() == 2)
        s.features.lowrank = static_cast<int32_t>(std::clamp<int64_t>(t->shape[0], 0, 1 << 20));
  return s;
}

// Tensors that the module's algorithm has no use for are kept out, and said.
void report_unused(Reading& r, const ir::Module& m, std::string_view label) {
  if (const TensorInfo* t = r.find(m, "input_scale"); t != nullptr && !r.claimed(*t) && m.scheme) {
    r.claim(*t);
    r.diag.report("input-scale-unused", {.file = r.context.package.file_name(t->file), .tensor = t->name, .module = m.path}, "an input_scale",
                  fmt::format("none: {} has no static activation scales", label));
  }
  if (const TensorInfo* t = r.find(m, "pre_quant_scale"); t != nullptr && !r.claimed(*t)) {
    r.claim(*t);
    r.diag.report("prescale-unexpected", {.file = r.context.package.file_name(t->file), .tensor = t->name, .module = m.path}, "a pre_quant_scale",
                  fmt::format("none: {} does not scale inputs", label.empty() ? "an unquantized model" : label));
  }
}

// A linear or an embedding whose tensors are there: plain or by its label's row, and whether the lists agree.
void read_weight(Reading& r, const ModelOptConfig& config, const Labels& labels, ir::Module& m) {
  const TensorInfo* weight = r.find(m, "weight");
  const NameRule* rule = r.excluded_by(m);
  const Label* label = labels.of(m);
  if (weight != nullptr && !has_codes(r, m) && r.read_plain(m)) {
    if (rule != nullptr)
      m.why = fmt::format("{}: '{}'", config.from, rule->text());
    else if (labels.name().empty())
      m.why = "the model's linears are not quantized";
    else if (config.mixed && label == nullptr)
      m.why = "quantized_layers does not list it";
    else if (m.kind == arch::Kind::embedding)
      m.why = "embeddings are not quantized unless they have scales";
    else
      m.why = r.report_unlisted(m);
  } else if (label != nullptr) {
    const Row& row = labels.row_of(*label, m);
    m.scheme = scheme_of(r, *label, row, m);
    m.why = r.why_quantized(m, rule, label->why);
    const bool usable = read_row(r, row, m);
    if (!usable && weight == nullptr)
      for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
    r.report_tied_embedding(m);
  }
  report_unused(r, m, label != nullptr ? label->name : std::string_view());
  r.read_bias(m);
}

// Stacked experts with scales; false where they have none and are plain.
bool read_stack(Reading& r, const ModelOptConfig& config, const Labels& labels, ir::Module& m) {
  const Label* label = labels.of(m);
  if (!has_codes(r, m) || label == nullptr) return false;
  const modelopt::StackKind* kind = modelopt::stack_kind(label->name, label->stacks_have_input);
  if (kind == nullptr) {
    for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
    r.diag.report("algorithm-unsupported", {.file = config.from, .module = m.path}, fmt::format("{} on stacked experts", label->name),
                  "an algorithm whose scales belong to the stacked codes");
    return true;
  }
  m.scheme = meaning_of(*kind, label->group);
  m.stack = {.inputs_first = true, .own_scale = kind->own_scale};
  m.why = r.why_quantized(m, r.excluded_by(m), label->why);
  read_row(r, Row{.label = kind->label, .holds = [](const ir::Scheme&) noexcept { return false; }, .parts = kind->parts()}, m);
  report_unused(r, m, label->name);
  r.read_bias(m);
  return true;
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  ModelOptConfig config;
  const bool config_ok = read_modelopt_config(context.package, config, diag);
  if (!config_ok || !r.begin()) return false;
  out.dialect = "modelopt";
  out.producer = config.producer;
  Labels labels(r, config);
  if (!labels.settle()) return false;
  out.quant_algo = labels.name();
  if (config.algos.size() > 1)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, fmt::format("{} there, {} in config.json", config.algos[0], config.algos[1]),
                fmt::format("{} in both, as the tensors are", labels.name()));
  if (config.layers_disagree)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, "other quantized_layers there than in config.json", "the same in both");
  if (!config.mixed && config.groups.size() > 1)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, fmt::format("group_size {} there, {} in config.json", config.groups[0], config.groups[1]),
                "one group size: the scales decide");
  std::optional<ir::KvCache> kv;
  for (const std::string& algo : config.kv) {
    const std::optional<ir::KvCache> said = modelopt::kv_of(algo);
    if (!said) {
      diag.report("algorithm-unsupported", {.file = config.from}, fmt::format("KV-cache algorithm {}", escape(algo)), "FP8, NVFP4, NVFP4_AFFINE, INT8 or none");
      return false;
    }
    if (!kv) kv = said;
  }
  std::vector<NameRule> excludes;
  for (const std::string& e : config.excludes) excludes.push_back(*NameRule::shell(e));
  r.set_rules(std::move(excludes), config.from);
  // KV scales first: they lie under the projections' names.
  r.read_kv_scales(Reading::KvNames::projection, kv, config.from);
  if (config.kv.size() > 1)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, fmt::format("KV cache {} there, {} in config.json", config.kv[0], config.kv[1]),
                "the same in both");
  if (config.kv_disagrees)
    diag.report("config-disagree", {.file = "hf_quant_config.json"}, "a KV-cache algorithm in one of the two documents only",
                "the same in both: the scales decide");
  r.read_modules([&](ir::Module& m) { read_weight(r, config, labels, m); }, [&](ir::Module& m) { return read_stack(r, config, labels, m); });
  modelopt::check_prescales(r, [&](const ir::Module& m) { return labels.of(m) != nullptr ? labels.of(m)->name : std::string_view(); });
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(modelopt) = {
    .name = "modelopt", .spec = spec, .match = match, .read = read, .write = modelopt::write};
// clang-format on

}  // namespace qb
