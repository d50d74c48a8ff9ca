// Hugging Face "mxfp4": the releases of gpt-oss. The experts of a layer are stacked, [experts, outputs, inputs / 32, 16] bytes of four-bit codes with a byte of
// exponent for each block, biases in their own dtype; everything else is not quantized.
//
// Source of truth: the releases' files and what transformers 5.17 (Mxfp4Config) makes of them. Its dequantized experts are turned, [experts, inputs, outputs].
// Entries of modules_to_not_convert are names of modules or of what holds them, with * across dots.
#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "dialect/documents.h"
#include "dialect/mxfp4_stacks.h"
#include "dialect/register.h"
#include "dialect/row.h"

namespace qb {
namespace {

using ir::Role;

constexpr const char* file = "config.json";

Match match(const Package& p) {
  return match_quant_method(p, "mxfp4");
}

bool read_excludes(const Json& q, RegexCompiler regex, std::vector<NameRule>& out, Diagnostics& diag) {
  const Json* list = find(q, "modules_to_not_convert");
  if (list == nullptr || list->is_null()) return true;
  if (!list->is_array() || !std::all_of(list->begin(), list->end(), [](const Json& e) { return e.is_string(); })) {
    diag.report("config-invalid", {.file = file}, fmt::format("quantization_config.modules_to_not_convert is {}", dump_json(*list, -1).substr(0, 80)),
                "a list of module names");
    return false;
  }
  for (const Json& e : *list) out.push_back(NameRule::transformers(e.get<std::string>(), regex));
  return true;
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  std::vector<NameRule> excludes;
  const bool config_ok = read_excludes(*quantization_config(context.package), context.regex, excludes, diag);
  if (!config_ok || !r.begin()) return false;
  out.dialect = "hf_mxfp4";
  out.quant_algo = mxfp4_stack_row().label;
  r.set_rules(std::move(excludes), file);
  r.read_modules(
      [&](ir::Module& m) {
        r.read_plain(m);
        const NameRule* rule = r.excluded_by(m);
        m.why = rule != nullptr ? fmt::format("{}: '{}'", file, rule->text()) : "quant_method mxfp4 means stacked experts alone";
        r.read_bias(m);
      },
      [&](ir::Module& m) { return read_mxfp4_stack(r, m, fmt::format("{}: quant_method mxfp4", file)); });
  return true;
}

// The patterns of a source of this dialect, else the modules by name.
std::vector<std::string> excludes_of(const ir::Checkpoint& c) {
  std::vector<std::string> out;
  if (c.dialect == "hf_mxfp4") {
    for (const ir::Exclusion& e : c.exclusions) out.push_back(e.rule);
    return out;
  }
  for (const ir::Module& m : c.modules)
    if (!m.scheme && m.part(Role::code) != nullptr) out.push_back(m.path);
  return out;
}

bool write(const ir::Checkpoint& c, const WriteContext& context, Export& out, Diagnostics& diag) {
  bool quantized = false;
  for (const ir::Module& m : c.modules) {
    if (!m.scheme) continue;
    quantized = true;
    if (m.kind != arch::Kind::expert || m.stack.inputs_first || !mxfp4_stack_row().holds(*m.scheme))
      diag.report("scheme-inexpressible", {.module = m.path},
                  fmt::format("{}{}", to_string(*m.scheme), m.kind == arch::Kind::expert ? " on stacked experts" : " on a module of its own"),
                  "mxfp4 with blocks along the inputs of stacked experts (--experts stacked), and nothing else quantized");
  }
  if (c.kv) diag.report("scheme-inexpressible", {}, "kv:" + to_string(c.kv->scheme), "no KV-cache scales: this format has no place for them");
  if (!diag.ok()) return false;
  note_producer(c, out);
  for (const ir::Module& m : c.modules) {
    if (m.scheme) {
      write_row(mxfp4_stack_row(), m, context, out);
    } else {
      for (const ir::Stored& s : m.parts) write_plain(s, out);
    }
  }
  Json config = plain_config(context.package);
  if (quantized) {
    Json q = Json::object();
    q["modules_to_not_convert"] = excludes_of(c);
    q["quant_method"] = "mxfp4";
    config["quantization_config"] = std::move(q);
  }
  out.documents.emplace_back(file, std::make_shared<Json>(std::move(config)));
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(hf_mxfp4) = {
    .name = "hf_mxfp4", .spec = "gpt-oss releases; transformers 5.17 Mxfp4Config", .match = match, .read = read, .write = write};
// clang-format on

}  // namespace qb
