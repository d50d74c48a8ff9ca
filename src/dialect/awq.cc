// AutoAWQ: four-bit codes with zero points in groups, in the "gemm" and "gemv" orders. Written as gemm, and as gemv where that was the source.
//
// Source of truth: autoawq 0.2.9 and gptqmodel 7.7, and the bytes that they write. real = scale * (code - zero), both unsigned; taking 8 from both gives the
// signed numbers of the representation. Zero points that are absent are 8, and so are those beside a `zero_point` that is false
// (pass/settle.h). Which modules are quantized is decided by their tensors; the list of exceptions names parts of names.
//   gemm  qweight [k, n/8], qzeros [groups, n/8]: word c holds columns 8c..8c+7 of the product, column 8c+j in nibble {0,4,1,5,2,6,3,7}[j]; scales [groups, n]
//   gemv  qweight [n, k/8], qzeros [n, w]: in order along k and along the groups; scales [n, 8w]; w is padded
#include <fmt/format.h>

#include <map>
#include <optional>

#include "base/json.h"
#include "dialect/documents.h"
#include "dialect/packed.h"
#include "dialect/register.h"
#include "dialect/row.h"

namespace qb {
namespace {

using ir::Role;

constexpr const char* file = "config.json";
constexpr std::string_view spec = "autoawq 0.2.9, gptqmodel 7.7";
constexpr int64_t per_word = 8;

Match match(const Package& p) {
  return match_quant_method(p, "awq");
}

struct Config {
  bool gemv = false;
  bool zeros = true;    // zero points other than 8
  int32_t group = 128;  // 0: the whole row
  std::string version = "gemm";
  std::vector<NameRule> excludes;
};

bool read_config(const Json& q, Config& out, Diagnostics& diag) {
  bool ok = true;
  const auto unsupported = [&](std::string what, std::string expected) {
    diag.report("algorithm-unsupported", {.file = file}, std::move(what), std::move(expected));
    ok = false;
  };
  out.version = string_at(q, "version", "gemm");
  for (char& c : out.version)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  out.gemv = out.version == "gemv";
  if (out.version != "gemm" && out.version != "gemv") unsupported(fmt::format("version {}", escape(out.version)), "gemm or gemv");
  if (const int64_t bits = int_at(q, "bits", 4); bits != 4) unsupported(fmt::format("bits {}", bits), "4");
  const int64_t group = int_at(q, "group_size", 128);
  if (group != -1 && (group < 8 || group > 65536)) {
    diag.report("config-invalid", {.file = file}, fmt::format("quantization_config.group_size is {}", group), "-1, or a whole number from 8 to 65536");
    ok = false;
  }
  out.zeros = bool_at(q, "zero_point", true);
  out.group = group == -1 ? 0 : static_cast<int32_t>(group);
  if (const Json* list = find(q, "modules_to_not_convert"); list != nullptr && !list->is_null()) {
    bool strings = list->is_array();
    for (size_t i = 0; strings && i < list->size(); ++i) strings = (*list)[i].is_string();
    if (!strings) {
      diag.report("config-invalid", {.file = file}, "quantization_config.modules_to_not_convert is no list of strings", "a list of parts of module names");
      return false;
    }
    for (const Json& e : *list) out.excludes.push_back(NameRule::substring(e.get<std::string>()));
  }
  return ok;
}

// Nibbles in the order of the gemm kernel along the rows of the weight, words of one row of the tensor behind each other.
ir::View gemm_view(int64_t n, int64_t cols) {
  ir::View v{.dims = {n, cols}, .stride = {32, n / per_word * 32}};
  v.lanes[0] = {.count = per_word, .bit = {0, 16, 4, 20, 8, 24, 12, 28}};
  v.offset_binary = true;
  return v;
}
// Nibbles in order along the columns; a row of the tensor is `words` long.
ir::View gemv_view(int64_t n, int64_t cols, int64_t words) {
  ir::View v{.dims = {n, cols}, .stride = {words * 32, 4}};
  v.offset_binary = true;
  return v;
}

// Claims the module's tensors and fills its parts. False after a report.
bool read_packed(Reading& r, const Config& config, ir::Module& m) {
  PackedReading p(r, m);
  if (!p.begin(config.zeros)) return false;
  const bool gemv = config.gemv;
  m.n = gemv ? p.code().shape[0] : p.code().shape[1] * per_word;
  m.k = gemv ? p.code().shape[1] * per_word : p.code().shape[0];
  const int64_t groups = config.group == 0 ? 1 : (m.k + config.group - 1) / config.group;
  ir::QuantType& type = m.scheme.emplace().weight;
  type = {.code = Elem::int4, .scale = ir::ScaleValues::any, .block = {1, config.group}};
  if (p.zero() != nullptr && config.zeros) type.zero = ir::Zero::code;
  // The rows of gemv are padded.
  const auto fits = [&](const TensorInfo& t, int64_t each) {
    if (!gemv) return p.has_shape(t, groups, m.n / each);
    return (t.shape[0] == m.n && t.shape[1] * each >= groups) || p.has_shape(t, m.n, (groups + each - 1) / each);
  };
  p.add(p.code(), Role::code, Elem::int4, gemv ? gemv_view(m.n, m.k, p.code().shape[1]) : gemm_view(m.n, m.k));
  if (const TensorInfo* zero = p.zero(); zero != nullptr) {
    if (!p.matrix(*zero, Elem::i32, "zero points") || !fits(*zero, per_word)) return false;
    p.add(*zero, Role::zero, Elem::int4, gemv ? gemv_view(m.n, groups, zero->shape[1]) : gemm_view(m.n, groups));
  }
  const TensorInfo& scale = p.scale();
  if (!p.float_matrix(scale) || !fits(scale, 1)) return false;
  const int64_t width = bits(scale.dtype);
  if (gemv)
    p.add_scale({.dims = {m.n, groups}, .stride = {scale.shape[1] * width, width}});
  else
    p.add_scale(groups);
  return true;
}

void read_weight(Reading& r, const Config& config, ir::Module& m) {
  const NameRule* rule = r.excluded_by(m);
  if (!has_packed(r, m) && r.read_plain(m)) {
    m.why = r.why_plain(m, rule);
  } else {
    m.why = r.why_quantized(m, rule, fmt::format("{}: quant_method awq", file));
    if (!read_packed(r, config, m)) {
      for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
    }
  }
  r.read_bias(m);
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  Config config;
  const bool config_ok = read_config(*quantization_config(context.package), config, diag);
  if (!config_ok || !r.begin()) return false;
  out.dialect = "awq";
  out.quant_algo = config.version;
  r.set_rules(std::move(config.excludes), file);
  r.read_kv_scales(Reading::KvNames::attention, std::nullopt, file);
  r.read_modules([&](ir::Module& m) { read_weight(r, config, m); });
  return true;
}

// ---- writing --------------------------------------------------------------------------------------------------------------------------------------------

// Why this format has no word for a module; empty when it has.
std::string trouble_of(const ir::Module& m) {
  const ir::QuantType& w = m.scheme->weight;
  if (w.code != Elem::int4 || w.scale != ir::ScaleValues::any || w.block.rows != 1 || m.scheme->input || !(m.scheme->features == ir::Features{}) ||
      m.kind != arch::Kind::linear)
    return "four-bit integers of linears in groups or by output, the groups in the columns' order, activations as they are";
  return m.n % per_word != 0 ? fmt::format("outputs in multiples of {}", per_word) : "";
}

// Words of a padded row of gemv for each group size; nothing where it is not known.
std::optional<int64_t> gemv_words(int32_t group, int64_t groups) {
  if (group < 32 || (group < 128 && group != 32 && group != 64)) return std::nullopt;
  const int64_t together = group >= 128 ? 1 : group == 64 ? 2 : 4, words = (groups + per_word - 1) / per_word;
  return (words + together - 1) / together * together;
}

// Weights that are quantized now come as gemm.
bool fits_gemv(const ir::Module& m) {
  return !m.make && m.k % per_word == 0 && gemv_words(m.scheme->weight.block.cols, 1);
}

void write_module(const ir::Module& m, bool gemv, const WriteContext& context, Export& out) {
  const ir::QuantType& type = m.scheme->weight;
  const ir::Stored* zero = m.part(Role::zero);
  const int64_t groups = groups_of(type, m.k), words = gemv ? *gemv_words(type.block.cols, groups) : m.n / per_word;
  const auto name = [&](const char* suffix) { return fmt::format("{}.{}", m.path, suffix); };
  std::vector<int64_t> code_shape{m.k, m.n / per_word}, zero_shape{groups, words};
  ir::View codes = gemm_view(m.n, m.k), zeros = gemm_view(m.n, groups);
  if (gemv) {
    code_shape = {m.n, m.k / per_word};
    zero_shape = {m.n, words};
    codes = gemv_view(m.n, m.k, m.k / per_word);
    zeros = gemv_view(m.n, groups, words);
  }
  if (m.make) {
    write_made_packed(m, {name("qweight"), code_shape, codes}, {name("qzeros"), zero_shape, zeros}, name("scales"), out);
  } else {
    write_packed(*m.part(Role::code), Elem::int4, name("qweight"), std::move(code_shape), codes, out);
    if (gemv)
      write_padded(*m.part(Role::scale), name("scales"), words * per_word, context, out);
    else
      write_transposed(*m.part(Role::scale), name("scales"), context, out);
  }
  if (zero != nullptr)
    write_packed(*zero, Elem::int4, name("qzeros"), std::move(zero_shape), zeros, out);
  else if (type.zero == ir::Zero::none)
    write_middle(Elem::int4, name("qzeros"), std::move(zero_shape), zeros, out);
  if (const ir::Stored* bias = m.part(Role::bias); bias != nullptr) write_plain(*bias, out);
}

bool write(const ir::Checkpoint& c, const WriteContext& context, Export& out, Diagnostics& diag) {
  const Origin origin = context.restore_origin ? read_origin(context.package) : Origin{};
  const auto noted = origin.document.find("label");
  bool gemv = noted != origin.document.end() && noted->second == "gemv";
  std::map<std::string, std::string> first_of;  // of each scheme
  const ir::QuantType* type = nullptr;
  for (const ir::Module& m : c.modules) {
    if (!m.scheme) continue;
    if (const std::string expected = trouble_of(m); !expected.empty())
      diag.report("scheme-inexpressible", {.module = m.path}, fmt::format("{} [{}, {}]", to_string(*m.scheme), m.n, m.k), expected);
    first_of.emplace(to_string(*m.scheme), m.path);
    type = &m.scheme->weight;
    gemv = gemv && fits_gemv(m);
  }
  if (first_of.size() > 1) {
    std::string list;
    for (const auto& [scheme, path] : first_of) list += fmt::format("{}{} ({}, ...)", list.empty() ? "" : "; ", scheme, path);
    diag.report("scheme-inexpressible", {}, list, "one scheme for all linears");
  }
  if (c.kv) diag.report("scheme-inexpressible", {}, "kv:" + to_string(c.kv->scheme), "no KV-cache scales: this format has no place for them");
  if (!diag.ok()) return false;
  note_producer(c, out);
  Json excludes = Json::array();
  for (const ir::Module& m : c.modules) {
    if (m.scheme) {
      write_module(m, gemv, context, out);
      continue;
    }
    if (m.kind == arch::Kind::linear && !m.parts.empty()) excludes.push_back(m.path);
    for (const ir::Stored& s : m.parts) write_plain(s, out);
  }
  Json config = plain_config(context.package);
  if (type != nullptr)
    config["quantization_config"] = Json{{"bits", 4},
                                         {"group_size", type->block.cols == 0 ? -1 : type->block.cols},
                                         {"modules_to_not_convert", excludes.empty() ? Json(nullptr) : std::move(excludes)},
                                         {"quant_method", "awq"},
                                         {"version", gemv ? "gemv" : "gemm"},
                                         {"zero_point", type->zero != ir::Zero::none}};
  out.documents.emplace_back(file, std::make_shared<Json>(std::move(config)));
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(awq) = {
    .name = "awq", .spec = spec, .match = match, .read = read, .write = write};
// clang-format on

}  // namespace qb
