// compressed-tensors (llm-compressor 0.6 to 0.14, compressed-tensors 0.10 to 0.19): float-quantized, naive-quantized, nvfp4-pack-quantized,
// mxfp4-pack-quantized, mxfp8-quantized, int-quantized, pack-quantized; sparse-24-bitmask and sparse-bitmask are read alone.
//
// Source of truth: the library's own files. The group's `format` wins over the global one; targets are tried exact name, then regex, then class name, each in
// lexicographic order; a module that any ignore entry matches is unquantized.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/json.h"
#include "dialect/compressed_tensors_calibration.h"
#include "dialect/compressed_tensors_config.h"
#include "dialect/compressed_tensors_transforms.h"
#include "dialect/documents.h"
#include "dialect/masked.h"
#include "dialect/register.h"
#include "dialect/row.h"
#include "ir/groups.h"

namespace qb {
namespace {

using ir::Role;
using ir::ScaleForm;

constexpr std::string_view spec = "compressed-tensors 0.19, llm-compressor 0.14";
// The library's version whose conventions are written: every key below exists there, and per-group formats are honoured.
constexpr std::string_view written_version = "0.19.0";

bool is_float_format(const ir::Scheme& s) {
  return ct_format(s) == "float-quantized" || ct_format(s) == "naive-quantized";
}
bool holds_tensor(const ir::Scheme& s) noexcept {
  return is_float_format(s) && s.weight.block == ir::Block{0, 0};
}
bool holds_channel(const ir::Scheme& s) noexcept {
  return is_float_format(s) && s.weight.block == ir::Block{1, 0};
}
bool holds_grid(const ir::Scheme& s) noexcept {
  return is_float_format(s) && s.weight.block.cols > 0;
}
bool holds_nvfp4(const ir::Scheme& s) noexcept {
  return ct_format(s) == "nvfp4-pack-quantized";
}

bool holds_mxfp4(const ir::Scheme& s) noexcept {
  return ct_format(s) == "mxfp4-pack-quantized";
}
bool holds_mxfp8(const ir::Scheme& s) noexcept {
  return ct_format(s) == "mxfp8-quantized";
}

bool is_integer_format(const ir::Scheme& s) {
  return is_integer_code(s.weight.code) && !ct_format(s).empty();
}
bool holds_integer_tensor(const ir::Scheme& s) noexcept {
  return is_integer_format(s) && s.weight.block == ir::Block{0, 0};
}
bool holds_integer_grid(const ir::Scheme& s) noexcept {
  return is_integer_format(s) && s.weight.block.rows == 1;
}

constexpr PartRow input_part{.role = Role::input_scale,
                             .suffix = "input_scale",
                             .container = Elem::f32,
                             .rank = Rank::scalar1,
                             .any_float = true,
                             .form = ScaleForm::multiply,
                             .presence = Presence::required};
constexpr PartRow output_part{.role = Role::output_scale, .suffix = "output_scale", .container = Elem::f32, .rank = Rank::scalar1, .any_float = true};
constexpr PartRow output_zero_part{.role = Role::output_zero, .suffix = "output_zero_point", .container = Elem::i8, .rank = Rank::scalar1};
constexpr PartRow scale_part(Rank rank) {
  return {.role = Role::scale, .suffix = "weight_scale", .container = Elem::f32, .rank = rank, .any_float = true};
}
constexpr PartRow fp8_part{Role::code, "weight", Elem::e4m3, Rank::matrix};
constexpr PartRow sparse_fp8_part{.role = Role::code, .suffix = "compressed", .container = Elem::e4m3, .rank = Rank::matrix, .packing = Packing::masked};
constexpr std::array<PartRow, 5> fp8_parts(const PartRow& code, Rank scale) {
  return {code, scale_part(scale), input_part, output_part, output_zero_part};
}
constexpr auto tensor_parts = fp8_parts(fp8_part, Rank::scalar1), sparse_tensor_parts = fp8_parts(sparse_fp8_part, Rank::scalar1);
constexpr auto channel_parts = fp8_parts(fp8_part, Rank::column), sparse_channel_parts = fp8_parts(sparse_fp8_part, Rank::column);
constexpr auto grid_parts = fp8_parts(fp8_part, Rank::grid), sparse_grid_parts = fp8_parts(sparse_fp8_part, Rank::grid);
constexpr PartRow nvfp4_parts[] = {
    {Role::code, "weight_packed", Elem::u8, Rank::matrix},
    {Role::scale, "weight_scale", Elem::e4m3, Rank::grid},
    {.role = Role::global, .suffix = "weight_global_scale", .container = Elem::f32, .rank = Rank::scalar1, .form = ScaleForm::divide},
    {.role = Role::input_scale, .suffix = "input_global_scale", .container = Elem::f32, .rank = Rank::scalar1, .form = ScaleForm::divide},
};
constexpr PartRow exponent_part{.role = Role::scale, .suffix = "weight_scale", .container = Elem::u8, .rank = Rank::grid, .form = ScaleForm::exponent};
constexpr PartRow mxfp4_parts[] = {{Role::code, "weight_packed", Elem::u8, Rank::matrix}, exponent_part};
constexpr PartRow mxfp8_parts[] = {fp8_part, exponent_part};
constexpr PartRow order_part{.role = Role::order, .suffix = "weight_g_idx", .container = Elem::i32, .rank = Rank::columns};
constexpr PartRow input_zero_part{.role = Role::input_zero, .suffix = "input_zero_point", .container = Elem::i8, .rank = Rank::scalar1};
constexpr PartRow byte_part{.role = Role::code, .suffix = "weight", .container = Elem::i8, .rank = Rank::matrix};
constexpr PartRow byte_zero(Rank rank) {
  return {.role = Role::zero, .suffix = "weight_zero_point", .container = Elem::i8, .rank = rank};
}
constexpr PartRow word_part{
    .role = Role::code, .suffix = "weight_packed", .container = Elem::i32, .rank = Rank::matrix, .packing = Packing::words_along_columns};
constexpr PartRow word_zero{
    .role = Role::zero, .suffix = "weight_zero_point", .container = Elem::i32, .rank = Rank::grid, .packing = Packing::words_along_rows};
constexpr PartRow shape_part{.role = Role::shape, .suffix = "weight_shape", .container = Elem::i64, .rank = Rank::pair};
constexpr PartRow byte_tensor_parts[] = {byte_part,   scale_part(Rank::scalar1), byte_zero(Rank::scalar1), input_part, input_zero_part,
                                         output_part, output_zero_part};
constexpr PartRow byte_grid_parts[] = {byte_part,  scale_part(Rank::grid), byte_zero(Rank::grid), order_part,
                                       input_part, input_zero_part,        output_part,           output_zero_part};
constexpr PartRow word_tensor_parts[] = {word_part,  scale_part(Rank::scalar1), word_zero,   shape_part,
                                         input_part, input_zero_part,           output_part, output_zero_part};
constexpr PartRow word_grid_parts[] = {word_part,  scale_part(Rank::grid), word_zero,   order_part,      shape_part,
                                       input_part, input_zero_part,        output_part, output_zero_part};
constexpr PartRow sparse_byte_part{.role = Role::code, .suffix = "compressed", .container = Elem::i8, .rank = Rank::matrix, .packing = Packing::masked};
constexpr PartRow sparse_byte_tensor_parts[] = {sparse_byte_part, scale_part(Rank::scalar1), byte_zero(Rank::scalar1), input_part, input_zero_part,
                                                output_part,      output_zero_part};
constexpr PartRow sparse_byte_grid_parts[] = {sparse_byte_part, scale_part(Rank::grid), byte_zero(Rank::grid), input_part, input_zero_part,
                                              output_part,      output_zero_part};
constexpr Row rows[] = {
    {"float-quantized", holds_tensor, tensor_parts},
    {"float-quantized", holds_channel, channel_parts},
    {"float-quantized", holds_grid, grid_parts},
    {"nvfp4-pack-quantized", holds_nvfp4, nvfp4_parts},
    {"mxfp4-pack-quantized", holds_mxfp4, mxfp4_parts},
    {"mxfp8-quantized", holds_mxfp8, mxfp8_parts},
    {"pack-quantized", holds_integer_tensor, word_tensor_parts},
    {"pack-quantized", holds_integer_grid, word_grid_parts},
    {"int-quantized", holds_integer_tensor, byte_tensor_parts},
    {"int-quantized", holds_integer_grid, byte_grid_parts},
};
// Of sparse weights; the library of today neither reads nor writes them.
constexpr Row sparse_rows[] = {
    {"float-quantized", holds_tensor, sparse_tensor_parts},
    {"float-quantized", holds_channel, sparse_channel_parts},
    {"float-quantized", holds_grid, sparse_grid_parts},
    {"int-quantized", holds_integer_tensor, sparse_byte_tensor_parts},
    {"int-quantized", holds_integer_grid, sparse_byte_grid_parts},
};

const Json* config_of(const Package& p) {
  if (const Json* q = quantization_config(p); q != nullptr) return q;
  const Json* config = p.document("config.json");
  const Json* q = config != nullptr ? find(*config, "compression_config") : nullptr;  // very old files
  return q != nullptr && q->is_object() ? q : nullptr;
}

Match match(const Package& p) {
  const Json* q = config_of(p);
  if (q == nullptr) return {};
  if (string_at(*q, "quant_method") == "compressed-tensors") return {Match::certain, "config.json: quant_method is compressed-tensors"};
  if (find(*p.document("config.json"), "compression_config") == q) return {Match::maybe, "config.json: compression_config is there"};
  return {};
}

struct Target {
  const CtGroup* group = nullptr;
  const NameRule* rule = nullptr;
  NameRule::How how = NameRule::How::no;
};

// The group that the library gives a module, by the best of its matching targets.
Target target_of(const CtConfig& config, const ir::Module& m) {
  const size_t best = config.targets.best(m.path, m.kind);
  if (best == RuleList::none) return {};
  const NameRule& rule = config.targets[best];
  return {&config.groups[config.target_groups[best]], &rule, rule.match(m.path, m.kind)};
}

// The row by which the module's tensors are stored; null when none that holds the scheme does. What the config calls it does not count.
const Row* stored_row(const Reading& r, const ir::Module& m, const ir::Scheme& scheme) {
  for (const Row& row : is_masked(r, m) ? std::span<const Row>(sparse_rows) : std::span<const Row>(rows)) {
    const TensorInfo* code = row.holds(scheme) ? r.find(m, row.parts[0].suffix) : nullptr;
    if (code != nullptr && code->dtype == row.parts[0].container) return &row;
  }
  return nullptr;
}

bool stores(const Reading& r, const ir::Module& m, const ir::Scheme& scheme) {
  return stored_row(r, m, scheme) != nullptr;
}

bool has_codes(const Reading& r, const ir::Module& m) {
  const TensorInfo* w = r.find(m, is_masked(r, m) ? "compressed" : "weight");
  return r.find(m, "weight_packed") != nullptr || r.find(m, "weight_scale") != nullptr || (w != nullptr && (w->dtype == Elem::e4m3 || w->dtype == Elem::i8));
}

// Plain numbers, all of them stored or those of a sparse weight.
bool read_plain(Reading& r, ir::Module& m) {
  const TensorInfo* sparse = r.find(m, "compressed");
  return sparse != nullptr && info(sparse->dtype).is_float && bits(sparse->dtype) >= 16 ? read_masked(r, m, sparse->dtype) : r.read_plain(m);
}

// The row to write a module by: the one that the file was in before it went through another dialect (`noted`, a format), one that keeps its bytes, else as the
// library stores the scheme.
const Row* written_row(const ir::Module& m, std::string_view noted) {
  const Row* usual = nullptr;
  if (noted == "naive-quantized") noted = "int-quantized";  // as it is called with activations
  for (const Row& row : rows)
    if (is_integer_code(m.scheme->weight.code) && row.label == noted && row.holds(*m.scheme)) return &row;
  for (const Row& row : rows) {
    if (!row.holds(*m.scheme)) continue;
    if (!m.make && is_integer_code(m.scheme->weight.code) && keeps_bytes(row, m)) return &row;
    if (usual == nullptr || row.label == ct_format(*m.scheme)) usual = &row;
  }
  return usual;
}

std::string_view written_format(const ir::Module& m, std::string_view noted) {
  if (!is_integer_code(m.scheme->weight.code)) return ct_format(*m.scheme);
  const std::string_view label = written_row(m, noted)->label;
  return label == "int-quantized" && !m.scheme->input ? "naive-quantized" : label;
}

// Another group whose targets name the module too, with another scheme; with equal right, or the only one of the two that fits what is stored.
const CtGroup* rival_of(const Reading& r, const CtConfig& config, const ir::Module& m, const Target& best) {
  const CtGroup* rival = nullptr;
  for (const CtGroup& g : config.groups) {
    if (&g == best.group || g.scheme == best.group->scheme) continue;
    for (const NameRule& rule : g.targets) {
      const NameRule::How how = rule.match(m.path, m.kind);
      if (how != NameRule::How::no && (how == best.how || (!stores(r, m, best.group->scheme) && stores(r, m, g.scheme)))) rival = &g;
    }
  }
  return rival;
}

// A weight that was saved without compressing it: the numbers from before, and beside them what was measured for it.
bool read_uncompressed(Reading& r, ir::Module& m, const Target& t, CtCalibrations& calibrations) {
  const TensorInfo* weight = r.find(m, "weight");
  if (t.group == nullptr || t.group->compressed || weight == nullptr || r.find(m, "weight_scale") == nullptr || r.find(m, "weight_packed") != nullptr ||
      !r.read_plain(m))
    return false;
  calibrations.read(*t.group, m);
  m.why = fmt::format("{}: target '{}', saved without compressing it: scales for {} lie beside the weight from before", t.group->name, t.rule->text(),
                      to_string(t.group->scheme));
  return true;
}

void read_weight(Reading& r, const CtConfig& config, ir::Module& m, CtCalibrations& calibrations) {
  const NameRule* ignored = r.excluded_by(m);
  Target t = target_of(config, m);
  if (ignored == nullptr && read_uncompressed(r, m, t, calibrations)) return r.read_bias(m);
  const bool codes = has_codes(r, m);
  const std::string_view tensor = r.named_tensor(m);
  if (!codes && read_plain(r, m)) {
    if (ignored != nullptr)
      m.why = fmt::format("ignore: '{}'", ignored->text());
    else if (t.group == nullptr)
      m.why = config.groups.empty() ? "the model's linears are not quantized" : "no target names it";
    else
      m.why = r.report_unlisted(m);
  } else {
    if (const CtGroup* rival = t.group != nullptr ? rival_of(r, config, m, t) : nullptr; rival != nullptr) {
      r.diag.report("targets-overlap", {.file = "config.json", .tensor = tensor, .module = m.path},
                    fmt::format("groups {} ({}) and {} ({})", t.group->name, to_string(t.group->scheme), rival->name, to_string(rival->scheme)),
                    "one group for each module");
      if (!stores(r, m, t.group->scheme) && stores(r, m, rival->scheme)) t.group = rival;  // what is stored settles it
    }
    if (t.group == nullptr && !config.groups.empty()) {
      for (const CtGroup& g : config.groups)
        if (stores(r, m, g.scheme) && t.group == nullptr) t.group = &g;
      r.diag.report("targets-miss", {.file = "config.json", .tensor = tensor, .module = m.path}, "quantized, and no target names it",
                    "a target for each quantized module");
    }
    if (t.group == nullptr) return;  // its tensors stay unclaimed and are reported
    if (ignored != nullptr)
      r.diag.report("excluded-but-quantized", {.file = "config.json", .tensor = tensor, .module = m.path},
                    fmt::format("quantized, and ignored by '{}'", ignored->text()), "no entry that leaves it out; the tensors decide");
    m.scheme = t.group->scheme;
    m.scheme->features.sparse24 = is_two_of_four(r, m);
    // Old files say with the outputs of keys and values how their cache is quantized.
    if (const TensorInfo* output = r.find(m, "output_scale"); output != nullptr && r.claimed(*output)) m.scheme->features.output.reset();
    m.why = t.rule != nullptr ? fmt::format("{}: target '{}'", t.group->name, t.rule->text()) : fmt::format("{}: by its tensors", t.group->name);
    const Row* row = stored_row(r, m, *m.scheme);
    if (row == nullptr) row = row_for(is_masked(r, m) ? std::span<const Row>(sparse_rows) : std::span<const Row>(rows), *m.scheme);
    if (row == nullptr || !read_row(r, *row, m))
      for (const TensorInfo* left : r.tensors_of(m)) r.claim(*left);
    r.report_tied_embedding(m);
  }
  r.read_bias(m);
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  CtConfig config;
  const bool config_ok = read_ct_config(*config_of(context.package), context.regex, config, diag);
  if (!config_ok || !r.begin()) return false;
  out.dialect = "compressed_tensors";
  out.producer = {"compressed-tensors", config.version};
  out.quant_algo = config.format.empty() ? config.sparsity : config.format;
  r.set_rules(config.ignore, "config.json");
  r.read_kv_scales(Reading::KvNames::attention, config.kv, "config.json");
  CtTransforms transforms(r, config);
  transforms.refuse_tied_head();
  CtCalibrations calibrations(r);
  r.read_modules([&](ir::Module& m) {
    read_weight(r, config, m, calibrations);
    transforms.read(m);
  });
  calibrations.check();
  return true;
}

// ---- writing --------------------------------------------------------------------------------------------------------------------------------------------

Json group_of(const ir::Scheme& s, std::string_view format, std::vector<std::string> targets) {
  Json g = Json::object();
  g["format"] = format;
  g["input_activations"] = s.input ? ct_args(s.input->type, &*s.input) : Json(nullptr);
  g["output_activations"] = s.features.output ? ct_args(s.features.output->type, &*s.features.output) : Json(nullptr);
  g["targets"] = Json::array();
  for (std::string& t : targets) g["targets"].push_back(std::move(t));
  g["weights"] = ct_args(s.weight, nullptr);
  return g;
}

void write_documents(const ir::Checkpoint& c, std::string_view noted, const WriteContext& context, Export& out) {
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> by_scheme;  // scheme and format
  std::vector<std::string> ignore;
  bool class_only = true;  // every quantized module is a Linear
  for (const ir::Module& m : c.modules) {
    if (m.scheme) {
      ir::Scheme said = *m.scheme;
      said.features.transform = false;  // transform_config says it
      by_scheme[{to_string(said), std::string(written_format(m, noted))}].push_back(m.path);
      class_only &= m.kind == arch::Kind::linear;
    } else if (m.kind == arch::Kind::linear) {
      ignore.push_back(m.path);
    }
  }
  Json config = plain_config(context.package);
  if (!by_scheme.empty() || c.kv) {
    Json groups = Json::object();
    std::string format;
    const bool one = by_scheme.size() == 1 && class_only;
    for (auto& [key, modules] : by_scheme) {
      const auto& [text, mine] = key;
      const ir::Scheme scheme = *ir::parse_scheme(text);
      format = format.empty() || format == mine ? mine : "mixed-precision";
      groups[fmt::format("group_{}", groups.size())] = group_of(scheme, mine, one ? std::vector<std::string>{"Linear"} : std::move(modules));
    }
    Json q = Json::object();
    q["config_groups"] = std::move(groups);
    q["format"] = format.empty() ? "dense" : format;
    q["global_compression_ratio"] = nullptr;
    q["ignore"] = by_scheme.empty() ? Json::array() : Json(ignore);
    q["kv_cache_scheme"] = c.kv ? ct_kv_args(*c.kv) : Json(nullptr);
    q["quant_method"] = "compressed-tensors";
    q["quantization_status"] = "compressed";
    q["sparsity_config"] = Json::object();
    const Json* source = c.dialect == "compressed_tensors" ? config_of(context.package) : nullptr;
    const Json* transforms = source != nullptr ? find(*source, "transform_config") : nullptr;
    q["transform_config"] = transforms != nullptr && transforms->is_object() ? *transforms : Json::object();
    q["version"] = written_version;
    config["quantization_config"] = std::move(q);
  }
  out.documents.emplace_back("config.json", std::make_shared<Json>(std::move(config)));
}

// KV scales of one attention module; a layer without any gets the default 1, which the way back leaves out again.
void write_kv(const ir::Module& m, bool per_head, const WriteContext& context, Export& out) {
  for (const Role role : {Role::k_scale, Role::v_scale}) {
    const std::string name = fmt::format("{}.{}", m.path, ir::to_string(role));
    if (const ir::Stored* s = m.part(role); s != nullptr) {
      const int64_t count = s->view.dims[1];
      write_stored(*s,
                   {.name = name,
                    .dtype = s->container == Elem::f16 || s->container == Elem::bf16 ? s->container : Elem::f32,
                    .shape = per_head ? std::vector<int64_t>{count, 1, 1} : std::vector<int64_t>{1}},
                   context, out);
      continue;
    }
    if (per_head) continue;
    prog::Program p;
    p.ops.emplace_back(prog::Literal{Elem::f32, std::string("\x00\x00\x80\x3f", 4)});
    p.outputs.push_back({.name = name, .dtype = Elem::f32, .shape = {1}, .value = 0});
    out.programs.push_back(std::move(p));
    OriginEntry absent;
    absent.absent = true;
    out.origin.tensors[name] = to_text(absent);
  }
}

bool write(const ir::Checkpoint& in, const WriteContext& context, Export& out, Diagnostics& diag) {
  ir::Checkpoint c = in;
  const Origin origin = context.restore_origin ? read_origin(context.package) : Origin{};
  const std::vector<ir::Scheme> noted = noted_schemes(origin);
  const auto label = origin.document.find("label");
  const std::string_view format = label != origin.document.end() ? std::string_view(label->second) : std::string_view();
  SchemeChanges changes;
  for (ir::Module& m : c.modules) {
    if (!m.scheme) continue;
    m.scheme = as_noted(noted, *m.scheme);
    const ir::Scheme before = *m.scheme;
    if (m.scheme->input) m.scheme->input->rounding = ir::Rounding::down;
    const bool split = m.scheme->weight.two_level() && !m.scheme->input && m.kind != arch::Kind::expert && ir::split_groups(m, 16);
    changes.add(m.path, before, *m.scheme,
                split ? "the library knows groups of 16 only: each block scale is written again for every 16 columns, and all weights are the same"
                      : "compressed-tensors leaves the rounding of run-time scales to the engine");
    const Row* row = written_row(m, format);
    // The library of today refuses configs with it.
    if (m.kind == arch::Kind::expert)
      diag.report("scheme-inexpressible", {.module = m.path}, fmt::format("{} on stacked experts", to_string(*m.scheme)), "a linear for each expert");
    else if (row == nullptr || m.scheme->features.actorder)
      diag.report("scheme-inexpressible", {.module = m.path}, to_string(*m.scheme),
                  "integers, FP8, MX or NVFP4 with groups of 16, the groups in the columns' order");
  }
  if (c.kv && !ct_holds_kv(*c.kv))
    diag.report("scheme-inexpressible", {}, to_string(*c.kv), "FP8 or int8 with a scale for the layer or for each head, without biases");
  if (!diag.ok()) return false;
  note_producer(c, out);
  changes.write(out);
  std::set<std::string> matrices;
  for (const ir::Module& m : c.modules) {
    for (const ir::Transform& t : m.transforms)
      if (matrices.insert(t.matrix.tensor).second) write_bytes(t.matrix, t.matrix.tensor, out);
    if (m.scheme) {
      write_row(*written_row(m, format), m, context, out);
      continue;
    }
    for (const ir::Stored& s : m.parts)
      if (s.role != Role::k_scale && s.role != Role::v_scale) write_plain(s, out);
    if (c.kv && m.kind == arch::Kind::attention) write_kv(m, c.kv->per_head, context, out);
  }
  write_documents(c, format, context, out);
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(compressed_tensors) = {
    .name = "compressed_tensors", .spec = spec, .match = match, .read = read, .write = write, .transforms = true};
// clang-format on

}  // namespace qb
