// GPTQ: integers of 2 to 8 bits in groups, packed along the inputs, with zero points and the group of every input.
//
// Source of truth: gptqmodel 7.7 and auto-gptq 0.7, and the bytes that they write. real = scale * (code - zero), both unsigned; taking half of their range from
// both gives the signed numbers of the representation. Which modules are quantized is decided by their tensors.
//   qweight [k * bits/32, n], qzeros [groups, n * bits/32]: streams of 32-bit words down the columns and along the rows; scales [groups, n]; g_idx [k]
//   gptq     zero points are stored as one less. gptqmodel takes 1 from all fields of a word at once, so that a 0 borrows; with 3 bits from each field alone
//   gptq_v2  zero points as they are
//   gptq_p   as they are, and the codes of each 32 in planes of 4, 2 and 1 bits; 5, 6 and 7 bits are never stored otherwise
// A config that says `sym` or not `desc_act` still has zero points and an order beside it: pass/settle.h.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "base/json.h"
#include "dialect/documents.h"
#include "dialect/gptq_config.h"
#include "dialect/packed.h"
#include "dialect/register.h"
#include "dialect/row.h"

namespace qb {
namespace {

using Format = GptqConfig::Format;
using ir::Role;

constexpr std::string_view spec = "gptqmodel 7.7, auto-gptq 0.7";

Match match(const Package& p) {
  std::string_view name;
  if (gptq_document(p, name) == nullptr) return {};
  return {Match::certain, name == "config.json" ? "config.json: quant_method is gptq" : fmt::format("{} is there", name)};
}

Elem integer_of(int32_t bits) {
  return bits == 8 ? Elem::i8 : static_cast<Elem>(static_cast<int32_t>(Elem::int2) + bits - 2);
}

bool in_planes(Format format, int32_t bits) {
  return 32 % bits != 0 && (format == Format::planar || bits != 3);
}

ir::View code_view(Format format, int32_t bits, int64_t n, int64_t k) {
  ir::View v{.dims = {n, k}, .stride = {32, bits}, .offset_binary = true};
  v.words[1] = n * 32;
  v.planes = in_planes(format, bits);
  return v;
}

ir::View zero_view(Format format, int32_t bits, int64_t n, int64_t groups) {
  ir::View v{.dims = {n, groups}, .stride = {bits, n * bits}, .offset_binary = true};
  v.planes = in_planes(format, bits);
  if (format != Format::v1 || v.planes) return v;
  v.less = 32 % bits == 0 ? ir::Less::word : ir::Less::field;
  if (v.less == ir::Less::field) return v;
  v.stride[0] = 32;
  v.lanes[0].count = 32 / bits;
  for (int32_t i = 0; i < v.lanes[0].count; ++i) v.lanes[0].bit[static_cast<size_t>(i)] = static_cast<uint8_t>(i * bits);
  return v;
}

// Claims the module's tensors and fills its parts. False after a report.
bool read_packed(Reading& r, Format format, const GptqArgs& args, ir::Module& m) {
  PackedReading p(r, m);
  const TensorInfo* order = r.find(m, "g_idx");
  if (order != nullptr) r.claim(*order);
  if (!p.begin(!args.symmetric)) return false;
  if (args.order && order == nullptr) p.absent("group-order-missing", "g_idx", "the group of each column, as desc_act says");
  const TensorInfo &code = p.code(), &scale = p.scale();
  const int64_t stream = code.shape[0] * 32;  // a parsed header bounds shapes by the file's size
  m.n = code.shape[1];
  m.k = stream / args.bits;
  const bool planes = in_planes(format, args.bits);
  if (stream % args.bits != 0 || m.n * args.bits % 32 != 0 || (planes && (m.k % 32 != 0 || m.n % 32 != 0)))
    return p.wrong(code, "weight-shape", fmt::format("whole words of codes of {} bits along both axes", args.bits));
  ir::QuantType& type = m.scheme.emplace().weight;
  type = {.code = integer_of(args.bits), .scale = ir::ScaleValues::any, .block = {1, args.group}};
  if (!args.symmetric) type.zero = ir::Zero::code;
  m.scheme->features.actorder = args.order && order != nullptr;
  if (!p.float_matrix(scale)) return false;
  int64_t groups = args.group == 0 ? 1 : (m.k + args.group - 1) / args.group;
  if (const int64_t rows = scale.shape[0]; scale.shape[1] == m.n && rows != groups && m.k % rows == 0 && m.k / rows <= 65536) {
    r.diag.report("group-size-mismatch", {.file = r.context.package.file_name(scale.file), .tensor = scale.name, .module = m.path},
                  fmt::format("{} rows of scales: groups of {}", rows, m.k / rows), fmt::format("{} rows for a weight [{}, {}]", groups, m.n, m.k));
    groups = rows;
    type.block.cols = rows == 1 ? 0 : static_cast<int32_t>(m.k / rows);
  }
  if (!p.has_shape(scale, groups, m.n)) return false;
  p.add(code, Role::code, type.code, code_view(format, args.bits, m.n, m.k));
  if (const TensorInfo* zero = p.zero(); zero != nullptr) {
    if (!p.matrix(*zero, Elem::i32, "zero points") || !p.has_shape(*zero, groups, m.n * args.bits / 32)) return false;
    p.add(*zero, Role::zero, type.code, zero_view(format, args.bits, m.n, groups));
  } else {
    type.zero = ir::Zero::none;
  }
  p.add_scale(groups);
  if (order == nullptr) return true;
  if (order->dtype != Elem::i32 || order->elements() != m.k || order->shape.size() != 1) return p.wrong(*order, "scale-shape", fmt::format("I32 [{}]", m.k));
  m.parts.push_back(r.stored(*order, Role::order, Elem::i32, 1, m.k));
  return true;
}

void read_weight(Reading& r, const GptqConfig& config, ir::Module& m) {
  const size_t decides = config.rule_for(m);
  const NameRule* rule = decides != RuleList::none ? &config.rules[decides] : nullptr;
  const bool excluded = rule != nullptr && config.dynamic[decides].excludes;
  const NameRule* exclusion = excluded ? r.excluded_by(m) : nullptr;
  const bool head = m.path == "lm_head";
  const std::string tensor = r.tensors_of(m).front()->name;
  if (!has_packed(r, m) && r.read_plain(m)) {
    m.why = r.why_plain(m, exclusion);
    if (head && config.head && !excluded)
      r.diag.report("layer-unquantized", {.file = config.from, .tensor = tensor, .module = m.path}, "plain numbers, and lm_head is true",
                    "qweight and scales, or lm_head false");
  } else {
    m.why = fmt::format("{}: {}", config.from, rule != nullptr ? fmt::format("dynamic: '{}'", rule->text()) : "quant_method gptq");
    if (excluded || (head && !config.head))
      r.diag.report("excluded-but-quantized", {.file = config.from, .tensor = tensor, .module = m.path},
                    excluded ? fmt::format("quantized, and left out by '{}'", rule->text()) : "quantized, and lm_head is not true",
                    "no entry that leaves it out; the tensors decide");
    if (!read_packed(r, config.format, rule != nullptr && !excluded ? config.dynamic[decides].args : config.args, m)) {
      for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
    }
  }
  r.read_bias(m);
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  GptqConfig config;
  const bool config_ok = read_gptq_config(context.package, context.regex, config, diag);
  if (!config_ok || !r.begin()) return false;
  out.dialect = "gptq";
  out.quant_algo = config.label;
  out.producer = config.producer;
  std::vector<NameRule> excludes;
  for (size_t i = 0; i < config.rules.size(); ++i)
    if (config.dynamic[i].excludes) excludes.push_back(config.rules[i]);
  r.set_rules(std::move(excludes), config.from);
  r.read_kv_scales(Reading::KvNames::attention, std::nullopt, config.from);
  r.read_modules([&](ir::Module& m) { read_weight(r, config, m); });
  return true;
}

// ---- writing --------------------------------------------------------------------------------------------------------------------------------------------

GptqArgs args_of(const ir::Scheme& s) {
  return {.bits = bits(s.weight.code), .group = s.weight.block.cols, .symmetric = s.weight.zero == ir::Zero::none, .order = s.features.actorder};
}

// Why this format has no word for a module; empty when it has.
std::string trouble_of(const ir::Module& m, Format format) {
  const ir::Scheme& s = *m.scheme;
  ir::Features beyond = s.features;
  beyond.actorder = false;
  const bool integers = is_integer_code(s.weight.code) && s.weight.scale == ir::ScaleValues::any && s.weight.block.rows == 1;
  if (!integers || s.input || !(beyond == ir::Features{}) || m.kind != arch::Kind::linear)
    return "integers of linears in groups or by output, activations as they are";
  const int64_t each = in_planes(format, bits(s.weight.code)) ? 32 : 32 / std::gcd(32, bits(s.weight.code));
  if (m.k % each != 0 || m.n % each != 0) return fmt::format("inputs and outputs in multiples of {}", each);
  return "";
}

void write_module(const ir::Module& m, Format format, const WriteContext& context, Export& out) {
  const ir::QuantType& type = m.scheme->weight;
  const int32_t width = bits(type.code);
  const int64_t groups = groups_of(type, m.k);
  const auto name = [&](const char* suffix) { return fmt::format("{}.{}", m.path, suffix); };
  const ir::View codes = code_view(format, width, m.n, m.k);
  const std::vector<int64_t> code_shape{m.k * width / 32, m.n};
  const ir::View zeros = zero_view(format, width, m.n, groups);
  const std::vector<int64_t> zero_shape{groups, m.n * width / 32};
  if (m.make) {
    write_made_packed(m, {name("qweight"), code_shape, codes}, {name("qzeros"), zero_shape, zeros}, name("scales"), out);
  } else {
    write_packed(*m.part(Role::code), type.code, name("qweight"), code_shape, codes, out);
    write_transposed(*m.part(Role::scale), name("scales"), context, out);
  }
  if (const ir::Stored* zero = m.part(Role::zero); zero != nullptr)
    write_packed(*zero, type.code, name("qzeros"), zero_shape, zeros, out);
  else if (type.zero == ir::Zero::none)
    write_middle(type.code, name("qzeros"), zero_shape, zeros, out);
  if (const ir::Stored* order = m.part(Role::order); order != nullptr)
    write_bytes(*order, name("g_idx"), out);
  else
    write_groups(name("g_idx"), m.k, type.block.cols, out);
  if (const ir::Stored* bias = m.part(Role::bias); bias != nullptr) write_plain(*bias, out);
}

// As the source was, where it was GPTQ. Else v1, which every engine reads, but where some do not undo it well: with zero points of 0.
std::string label_of(const ir::Checkpoint& c, const Origin& origin) {
  const auto noted = origin.document.find("label");
  const auto any = [&](auto test) {
    return std::any_of(c.modules.begin(), c.modules.end(), [&](const ir::Module& m) { return m.scheme && test(m.scheme->weight); });
  };
  if (noted != origin.document.end() && (noted->second == "gptq" || noted->second == "gptq_v2" || noted->second == "gptq_p")) return noted->second;
  if (any([](const ir::QuantType& t) { return in_planes(Format::v2, bits(t.code)); })) return "gptq_p";
  return any([](const ir::QuantType& t) { return t.zero != ir::Zero::none; }) ? "gptq_v2" : "gptq";
}

bool write(const ir::Checkpoint& c, const WriteContext& context, Export& out, Diagnostics& diag) {
  GptqDocuments documents;
  documents.label = label_of(c, context.restore_origin ? read_origin(context.package) : Origin{});
  const Format format = documents.label == "gptq_p" ? Format::planar : documents.label == "gptq_v2" ? Format::v2 : Format::v1;
  std::map<GptqArgs, int> times;
  for (const ir::Module& m : c.modules) {
    if (!m.scheme) continue;
    if (const std::string expected = trouble_of(m, format); !expected.empty())
      diag.report("scheme-inexpressible", {.module = m.path}, fmt::format("{} [{}, {}]", to_string(*m.scheme), m.n, m.k), expected);
    else if (const int seen = ++times[args_of(*m.scheme)]; seen > times[documents.args])
      documents.args = args_of(*m.scheme);
  }
  if (c.kv) diag.report("scheme-inexpressible", {}, "kv:" + to_string(c.kv->scheme), "no KV-cache scales: this format has no place for them");
  if (!diag.ok()) return false;
  note_producer(c, out);
  for (const ir::Module& m : c.modules) {
    const bool head = m.path == "lm_head";
    if (m.scheme) {
      documents.head |= head;
      if (args_of(*m.scheme) != documents.args) documents.others.emplace_back(m.path, args_of(*m.scheme));
      write_module(m, format, context, out);
      continue;
    }
    if (m.kind == arch::Kind::linear && !m.parts.empty() && !head) documents.excludes.push_back(m.path);
    for (const ir::Stored& s : m.parts) write_plain(s, out);
  }
  if (times.empty()) {
    out.documents.emplace_back("config.json", std::make_shared<Json>(plain_config(context.package)));
  } else {
    write_gptq_documents(context.package, documents, out);
  }
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(gptq) = {
    .name = "gptq", .spec = spec, .match = match, .read = read, .write = write};
// clang-format on

}  // namespace qb
