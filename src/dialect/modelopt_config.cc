#include "dialect/modelopt_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"

namespace qb {
namespace {

template <class T>
void add_distinct(std::vector<T>& list, T value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(std::move(value));
}

// One document's words; which key names they have differs between the two.
struct Words {
  bool present = false;
  std::optional<std::string> algo, kv;
  std::optional<int64_t> group;
  std::vector<std::string> excludes;
};

bool read_list(const Json& object, const char* key, const char* file, std::vector<std::string>& out, Diagnostics& diag) {
  const Json* list = find(object, key);
  if (list == nullptr || list->is_null()) return true;
  bool ok = list->is_array();
  if (ok)
    for (const Json& e : *list) {
      if (!e.is_string())
        ok = false;
      else
        out.push_back(e.get_ref<const std::string&>());
    }
  if (!ok) diag.report("config-invalid", {.file = file}, fmt::format("{} is {}", key, dump_json(*list, -1).substr(0, 60)), "a list of module names");
  return ok;
}

std::optional<std::string> word(const Json& object, const char* key) {
  const Json* v = find(object, key);
  if (v == nullptr || !v->is_string()) return std::nullopt;
  return v->get<std::string>();
}

// group_size is positive and small enough that no arithmetic on it can overflow.
bool read_group(const Json& object, const char* file, Words& out, Diagnostics& diag) {
  const Json* v = find(object, "group_size");
  if (v == nullptr || v->is_null()) return true;
  const int64_t g = int_at(object, "group_size", -1);
  if (g == 0) return true;  // written for formats without groups
  if (g < 1 || g > 65536) {
    diag.report("config-invalid", {.file = file}, fmt::format("group_size is {}", dump_json(*v, -1).substr(0, 40)), "a whole number from 1 to 65536");
    return false;
  }
  out.group = g;
  return true;
}

}  // namespace

bool read_modelopt_config(const Package& p, ModelOptConfig& out, Diagnostics& diag) {
  Words hf, embedded;
  bool ok = true;
  const Json* file = p.document("hf_quant_config.json");
  if (file != nullptr) {
    const Json* q = find(*file, "quantization");
    if (q == nullptr || !q->is_object()) {
      diag.report("config-invalid", {.file = "hf_quant_config.json"}, "no object 'quantization'",
                  "{\"producer\": ..., \"quantization\": {\"quant_algo\": ...}}");
      return false;
    }
    hf.present = true;
    hf.algo = word(*q, "quant_algo");
    hf.kv = word(*q, "kv_cache_quant_algo");
    ok &= read_group(*q, "hf_quant_config.json", hf, diag);
    ok &= read_list(*q, "exclude_modules", "hf_quant_config.json", hf.excludes, diag);
    if (const Json* producer = find(*file, "producer"); producer != nullptr)
      out.producer = {std::string(string_at(*producer, "name")), std::string(string_at(*producer, "version"))};
  }
  const Json* config = p.document("config.json");
  const Json* q = config != nullptr ? find(*config, "quantization_config") : nullptr;
  if (q != nullptr && q->is_object()) {
    embedded.present = true;
    embedded.algo = word(*q, "quant_algo");
    if (const Json* kv = find(*q, "kv_cache_scheme"); kv != nullptr && kv->is_object())
      embedded.kv = string_at(*kv, "type") == "float" && int_at(*kv, "num_bits", 0) == 8 ? "FP8" : dump_json(*kv, -1);
    else
      embedded.kv = word(*q, "kv_cache_scheme");
    if (!embedded.kv) embedded.kv = word(*q, "kv_cache_quant_algo");
    ok &= read_group(*q, "config.json", embedded, diag);
    if (!embedded.group)  // the only key of config_groups that the real data agree with
      if (const Json* groups = find(*q, "config_groups"); groups != nullptr && groups->is_object() && groups->size() == 1)
        if (const Json* weights = find(groups->front(), "weights"); weights != nullptr && weights->is_object())
          ok &= read_group(*weights, "config.json", embedded, diag);
    ok &= read_list(*q, "ignore", "config.json", embedded.excludes, diag);
    if (embedded.excludes.empty()) ok &= read_list(*q, "exclude_modules", "config.json", embedded.excludes, diag);
    if (const Json* producer = find(*q, "producer"); producer != nullptr && out.producer.name.empty())
      out.producer = {std::string(string_at(*producer, "name")), std::string(string_at(*producer, "version"))};
  }
  out.from = hf.present ? "hf_quant_config.json" : "config.json";
  for (const Words* w : {&hf, &embedded}) {
    if (!w->present) continue;
    if (w->algo) add_distinct(out.algos, *w->algo);
    if (w->kv) add_distinct(out.kv, *w->kv);
    if (w->group) add_distinct(out.groups, *w->group);
    for (const std::string& e : w->excludes) add_distinct(out.excludes, e);
  }
  out.kv_disagrees = hf.present && embedded.present && hf.kv.has_value() != embedded.kv.has_value();
  for (const std::string& algo : out.algos)
    if (algo == "MIXED_PRECISION") {
      diag.report("algorithm-unsupported", {.file = out.from}, "quant_algo MIXED_PRECISION", "one algorithm for all layers");
      return false;
    }
  return ok;
}

void write_modelopt_documents(const Package& p, const ModelOptDocuments& d, Export& out) {
  const auto number = [&](bool with_group) {
    Json j = Json::object();
    j["dynamic"] = false;
    j["num_bits"] = with_group ? 4 : 8;
    j["type"] = "float";
    if (with_group) j["group_size"] = d.scheme->weight.block.cols;
    return j;
  };
  const bool grouped = d.scheme && d.scheme->weight.two_level();
  Json producer = Json::object();
  producer["name"] = "modelopt";
  producer["version"] = d.producer_version;
  Json excludes = Json::array();
  if (!d.row_label.empty()) {
    std::vector<std::string> sorted = d.excludes;
    std::sort(sorted.begin(), sorted.end());
    for (const std::string& e : sorted) excludes.push_back(e);
  }

  Json embedded = Json::object();
  if (grouped || d.row_label == "FP8") {
    Json group = Json::object();
    if (d.scheme->input) group["input_activations"] = number(grouped);
    group["weights"] = number(grouped);
    group["targets"] = Json::array({"Linear"});
    embedded["config_groups"] = Json::object();
    embedded["config_groups"]["group_0"] = std::move(group);
  }
  embedded["ignore"] = excludes;
  if (!d.row_label.empty()) embedded["quant_algo"] = d.row_label;
  if (d.kv) embedded["kv_cache_scheme"] = number(false);
  embedded["producer"] = producer;
  embedded["quant_method"] = "modelopt";

  Json config = plain_config(p);
  if (!d.row_label.empty() || d.kv) {
    config["quantization_config"] = std::move(embedded);
    Json q = Json::object();
    q["quant_algo"] = d.row_label.empty() ? Json(nullptr) : Json(d.row_label);
    q["kv_cache_quant_algo"] = d.kv ? Json("FP8") : Json(nullptr);
    if (grouped) q["group_size"] = d.scheme->weight.block.cols;
    if (d.row_label.empty())
      q["quantized_layers"] = Json::object();
    else
      q["exclude_modules"] = std::move(excludes);
    Json file = Json::object();
    file["producer"] = std::move(producer);
    file["quantization"] = std::move(q);
    out.documents.emplace_back("hf_quant_config.json", std::make_shared<Json>(std::move(file)));
  }
  out.documents.emplace_back("config.json", std::make_shared<Json>(std::move(config)));
}

}  // namespace qb
