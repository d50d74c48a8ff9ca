// AutoAWQ: four-bit codes with zero points in groups, in the "gemm" and "gemv" orders. Import only.
//
// Source of truth: autoawq 0.2.9 and gptqmodel 7.7, and the bytes that they write. real = scale * (code - zero), both unsigned; taking 8 from both gives the
// signed numbers of the representation. Zero points that are absent are 8, and so are those beside a `zero_point` that is false
// (pass/settle.h). Which modules are quantized is decided by their tensors; the list of exceptions names parts of names.
//   gemm  qweight [k, n/8], qzeros [groups, n/8]: word c holds columns 8c..8c+7 of the product, column 8c+j in nibble {0,4,1,5,2,6,3,7}[j]; scales [groups, n]
//   gemv  qweight [n, k/8], qzeros [n, w]: in order along k and along the groups; scales [n, 8w]; w is padded
#include <fmt/format.h>

#include "base/json.h"
#include "dialect/documents.h"
#include "dialect/packed.h"
#include "dialect/register.h"

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
  if (!p.begin()) return false;
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
    p.add(scale, Role::scale, scale.dtype, {.dims = {m.n, groups}, .stride = {scale.shape[1] * width, width}});
  else
    p.add_scale(groups);
  return true;
}

void read_weight(Reading& r, const Config& config, ir::Module& m) {
  const NameRule* rule = r.excluded_by(m);
  if (!has_packed(r, m) && r.read_plain(m)) {
    m.why = r.why_plain(m, rule);
  } else {
    m.why = fmt::format("{}: quant_method awq", file);
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

}  // namespace

// clang-format off
QB_DIALECT(awq) = {
    .name = "awq", .spec = spec, .match = match, .read = read, .write = nullptr};
// clang-format on

}  // namespace qb
