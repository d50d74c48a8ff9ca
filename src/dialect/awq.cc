// AutoAWQ: four-bit codes with zero points in groups, in the "gemm" and "gemv" orders. Import only.
//
// Source of truth: autoawq 0.2.9 and gptqmodel 7.7, and the bytes that they write. real = scale * (code - zero), both unsigned; taking 8 from both gives the
// signed numbers of the representation. What `zero_point` says does not decide: zero points that are there are used, absent ones are 8. Which modules are
// quantized is decided by their tensors; the list of exceptions names parts of names.
//   gemm  qweight [k, n/8], qzeros [groups, n/8]: word c holds columns 8c..8c+7 of the product, column 8c+j in nibble {0,4,1,5,2,6,3,7}[j]; scales [groups, n]
//   gemv  qweight [n, k/8], qzeros [n, w]: in order along k and along the groups; scales [n, 8w]; w is padded
#include <fmt/format.h>

#include "base/json.h"
#include "dialect/documents.h"
#include "dialect/reading.h"
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

class Weight {
 public:
  Weight(Reading& r, const Config& config, ir::Module& m) : r_(r), config_(config), m_(m) {}

  // Claims the module's tensors and fills its parts. False after a report.
  bool read() {
    const TensorInfo* code = r_.find(m_, "qweight");
    const TensorInfo* zero = r_.find(m_, "qzeros");
    const TensorInfo* scale = r_.find(m_, "scales");
    for (const TensorInfo* t : {code, zero, scale})
      if (t != nullptr) r_.claim(*t);
    if (code == nullptr || scale == nullptr) {
      r_.diag.report(code == nullptr ? "weight-missing" : "scale-missing",
                     {.tensor = fmt::format("{}.{}", m_.path, code == nullptr ? "qweight" : "scales"), .module = m_.path}, "absent",
                     "qweight and scales of a quantized linear");
      return false;
    }
    if (!two_dimensional(*code, Elem::i32, "codes")) return false;
    m_.n = config_.gemv ? code->shape[0] : code->shape[1] * per_word;
    m_.k = config_.gemv ? code->shape[1] * per_word : code->shape[0];
    const int64_t groups = config_.group == 0 ? 1 : (m_.k + config_.group - 1) / config_.group;
    ir::QuantType& type = m_.scheme.emplace().weight;
    type = {.code = Elem::int4, .scale = ir::ScaleValues::any, .block = {1, config_.group}};
    if (zero != nullptr) type.zero = ir::Zero::code;
    add(*code, Role::code, Elem::int4, config_.gemv ? gemv_view(m_.n, m_.k, code->shape[1]) : gemm_view(m_.n, m_.k));
    if (zero != nullptr) {
      if (!two_dimensional(*zero, Elem::i32, "zero points") || !fits(*zero, groups, per_word)) return false;
      add(*zero, Role::zero, Elem::int4, config_.gemv ? gemv_view(m_.n, groups, zero->shape[1]) : gemm_view(m_.n, groups));
    }
    if (scale->dtype != Elem::f16 && scale->dtype != Elem::bf16 && scale->dtype != Elem::f32) return wrong(*scale, "dtype-unexpected", "F16, BF16 or F32");
    if (!two_dimensional(*scale, scale->dtype, "scales") || !fits(*scale, groups, 1)) return false;
    const int64_t width = bits(scale->dtype);
    ir::View view{.dims = {m_.n, groups}, .stride = {width, m_.n * width}};
    if (config_.gemv) view.stride = {scale->shape[1] * width, width};
    add(*scale, Role::scale, scale->dtype, view);
    return true;
  }

 private:
  bool wrong(const TensorInfo& t, const char* code, std::string expected) {
    r_.diag.report(code, {.file = r_.context.package.file_name(t.file), .tensor = t.name, .module = m_.path},
                   fmt::format("{} [{}]", info(t.dtype).safetensors, fmt::join(t.shape, ",")), std::move(expected));
    return false;
  }
  bool two_dimensional(const TensorInfo& t, Elem dtype, std::string_view what) {
    if (t.dtype == dtype && t.shape.size() == 2 && t.shape[0] > 0 && t.shape[1] > 0) return true;
    return wrong(t, t.dtype == dtype ? "weight-shape" : "dtype-unexpected", fmt::format("{} with two dimensions: {}", info(dtype).safetensors, what));
  }
  // One number for each output and group, `each` of them in an element. The rows of gemv are padded.
  bool fits(const TensorInfo& t, int64_t groups, int64_t each) {
    const bool right = config_.gemv ? t.shape[0] == m_.n && t.shape[1] * each >= groups : t.shape[0] == groups && t.shape[1] * each == m_.n;
    if (right) return true;
    return wrong(t, "scale-shape",
                 config_.gemv
                     ? fmt::format("[{}, {} or more] for a weight [{}, {}] in groups of {}", m_.n, (groups + each - 1) / each, m_.n, m_.k, config_.group)
                     : fmt::format("[{}, {}] for a weight [{}, {}] in groups of {}", groups, m_.n / each, m_.n, m_.k, config_.group));
  }
  void add(const TensorInfo& t, Role role, Elem elem, const ir::View& view) {
    m_.parts.push_back(r_.stored(t, role, elem, view.dims[0], view.dims[1]));
    m_.parts.back().view = view;
  }

  Reading& r_;
  const Config& config_;
  ir::Module& m_;
};

void read_weight(Reading& r, const Config& config, ir::Module& m) {
  const NameRule* rule = r.excluded_by(m);
  const bool coded = r.find(m, "qweight") != nullptr || r.find(m, "scales") != nullptr;
  if (!coded && r.read_plain(m)) {
    m.why = r.why_plain(m, rule);
  } else {
    m.why = fmt::format("{}: quant_method awq", file);
    if (!Weight(r, config, m).read()) {
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
