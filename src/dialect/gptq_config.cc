#include "dialect/gptq_config.h"

#include <fmt/format.h>

#include "base/json.h"
#include "dialect/documents.h"
#include "quantbridge/version.h"

namespace qb {
namespace {

constexpr std::string_view beside = "quantize_config.json";

std::string text_of(const Json& v) {
  return escape(dump_json(v, -1).substr(0, 80));
}

// Keys that rules may change. False after a report.
bool read_args(const Json& q, std::string_view where, GptqArgs& args, Diagnostics& diag) {
  const auto invalid = [&](const char* key, const char* expected) {
    diag.report("config-invalid", {.file = where}, fmt::format("{} is {}", key, text_of(*find(q, key))), expected);
    return false;
  };
  if (const Json* bits = find(q, "bits"); bits != nullptr) {
    if (!bits->is_number_integer()) return invalid("bits", "a whole number");
    const int64_t number = int_at(q, "bits", 0);
    if (number < 2 || number > 8) {
      diag.report("algorithm-unsupported", {.file = where}, fmt::format("bits {}", number), "2 to 8");
      return false;
    }
    args.bits = static_cast<int32_t>(number);
  }
  if (const Json* group = find(q, "group_size"); group != nullptr) {
    const int64_t number = int_at(q, "group_size", 0);
    if (!group->is_number_integer() || (number != -1 && (number < 1 || number > 65536))) return invalid("group_size", "-1, or a whole number from 1 to 65536");
    args.group = number == -1 ? 0 : static_cast<int32_t>(number);
  }
  for (const char* key : {"sym", "desc_act"})
    if (const Json* v = find(q, key); v != nullptr && !v->is_boolean() && !v->is_null()) return invalid(key, "true or false");
  args.symmetric = bool_at(q, "sym", args.symmetric);
  args.order = bool_at(q, "desc_act", args.order);
  return true;
}

bool read_format(const Json& q, GptqConfig& out, Diagnostics& diag) {
  const auto unsupported = [&](std::string what, const char* expected) {
    diag.report("algorithm-unsupported", {.file = out.from}, std::move(what), expected);
    return false;
  };
  out.label = string_at(q, "checkpoint_format", string_at(q, "format", "gptq"));
  if (bool_at(q, "is_marlin_format", false)) out.label = "marlin";
  if (out.label == "gptq_v2")
    out.format = GptqConfig::Format::v2;
  else if (out.label == "gptq_p")
    out.format = GptqConfig::Format::planar;
  else if (out.label != "gptq")
    return unsupported(fmt::format("checkpoint_format {}", escape(out.label)), "gptq, gptq_v2 or gptq_p");
  if (const std::string_view pack = string_at(q, "pack_dtype", "int32"); pack != "int32")
    return unsupported(fmt::format("pack_dtype {}", escape(pack)), "int32");
  if (const Json* adapter = find(q, "adapter"); adapter != nullptr && !adapter->is_null() && !adapter->empty())
    return unsupported(fmt::format("an adapter: {}", text_of(*adapter)), "quantized weights alone");
  return true;
}

bool read_dynamic(const Json& q, RegexCompiler regex, GptqConfig& out, Diagnostics& diag) {
  const Json* dynamic = find(q, "dynamic");
  if (dynamic == nullptr || dynamic->is_null() || (dynamic->is_boolean() && !dynamic->get<bool>())) return true;
  if (!dynamic->is_object()) {
    diag.report("config-invalid", {.file = out.from}, fmt::format("dynamic is {}", text_of(*dynamic)), "an object of rules");
    return false;
  }
  std::vector<NameRule> rules;
  for (auto it = dynamic->begin(); it != dynamic->end(); ++it) {
    Result<NameRule> rule = NameRule::signed_regex(it.key(), regex);
    if (!rule) {
      diag.report("pattern-invalid", {.file = out.from}, fmt::format("dynamic: '{}': {}", escape(it.key()), rule.error().what), "a regular expression");
      return false;
    }
    GptqConfig::Dynamic d{.excludes = it.key().starts_with("-:"), .args = out.args};
    if (!d.excludes && !it->is_object()) {
      diag.report("config-invalid", {.file = out.from}, fmt::format("dynamic: '{}' is {}", escape(it.key()), text_of(*it)), "an object");
      return false;
    }
    if (!d.excludes && !read_args(*it, out.from, d.args, diag)) return false;
    rules.push_back(std::move(*rule));
    out.dynamic.push_back(d);
  }
  out.rules = RuleList(std::move(rules));
  return true;
}

// Both documents are there and say different things. Only what the tensors show can be settled.
void compare(const Json& inside, const Json& other, Diagnostics& diag) {
  constexpr std::pair<const char*, bool> keys[] = {{"bits", false}, {"checkpoint_format", false}, {"group_size", true}, {"sym", true}, {"desc_act", true}};
  for (const auto& [key, settled] : keys) {
    const Json *a = find(inside, key), *b = find(other, key);
    if (a == nullptr || b == nullptr || *a == *b) continue;
    Problem& p = diag.report("config-disagree", {.file = beside}, fmt::format("{} {} there, {} in config.json", key, text_of(*b), text_of(*a)),
                             "the same in both documents");
    if (!settled) p.repair = Repair::none;
  }
}

}  // namespace

namespace {

// A regex for exactly this name.
std::string exactly(std::string_view path) {
  std::string out = "^";
  for (const char c : path) {
    if (c == '.') out += '\\';
    out += c;
  }
  return out + "$";
}

void write_args(const GptqArgs& args, Json& out) {
  out["bits"] = args.bits;
  out["group_size"] = args.group == 0 ? -1 : args.group;
  out["desc_act"] = args.order;
  out["sym"] = args.symmetric;
}

}  // namespace

void write_gptq_documents(const Package& package, const GptqDocuments& d, Export& out) {
  Json q = Json::object();
  write_args(d.args, q);
  q["lm_head"] = d.head;
  q["quant_method"] = "gptq";
  q["checkpoint_format"] = d.label;
  q["pack_dtype"] = "int32";
  Json rules = Json::object();
  for (const std::string& path : d.excludes) append(rules, "-:" + exactly(path), Json::object());
  for (const auto& [path, args] : d.others) {
    Json changed = Json::object();
    write_args(args, changed);
    append(rules, "+:" + exactly(path), std::move(changed));
  }
  if (!rules.empty()) q["dynamic"] = std::move(rules);
  // Tools go by who wrote a file: auto-gptq never wrote asymmetric integers as v1 well.
  q["meta"] = Json{{"quantizer", Json::array({fmt::format("quantbridge:{}", version)})}};
  Json config = plain_config(package);
  config["quantization_config"] = q;
  out.documents.emplace_back("config.json", std::make_shared<Json>(std::move(config)));
  out.documents.emplace_back("quantize_config.json", std::make_shared<Json>(std::move(q)));
}

const Json* gptq_document(const Package& p, std::string_view& name) {
  name = "config.json";
  if (const Json* q = quantization_config(p); q != nullptr) return string_at(*q, "quant_method") == "gptq" ? q : nullptr;
  name = beside;
  const Json* q = p.document(beside);
  const bool mine = q != nullptr && q->is_object() && find(*q, "bits") != nullptr && string_at(*q, "quant_method", "gptq") == "gptq";
  return mine ? q : nullptr;
}

bool read_gptq_config(const Package& p, RegexCompiler regex, GptqConfig& out, Diagnostics& diag) {
  std::string_view name;
  const Json& q = *gptq_document(p, name);
  out.from = name;
  if (!read_format(q, out, diag) || !read_args(q, name, out.args, diag) || !read_dynamic(q, regex, out, diag)) return false;
  out.head = bool_at(q, "lm_head", false);
  if (const Json* other = p.document(beside); other != nullptr && other != &q) compare(q, *other, diag);
  const Json* meta = find(q, "meta");
  const Json* tools = meta != nullptr ? find(*meta, "quantizer") : nullptr;
  const Json* tool = tools != nullptr && tools->is_array() && !tools->empty() ? &(*tools)[0] : tools;
  if (tool != nullptr && tool->is_string()) {
    const auto& text = tool->get_ref<const std::string&>();
    const size_t colon = text.find(':');
    out.producer = {text.substr(0, colon), colon == text.npos ? "" : text.substr(colon + 1)};
  }
  return true;
}

}  // namespace qb
