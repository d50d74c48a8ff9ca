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
  std::map<std::string, ModelOptConfig::Layer> layers;
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
bool read_group(const Json& object, const char* file, std::optional<int64_t>& out, Diagnostics& diag) {
  const Json* v = find(object, "group_size");
  if (v == nullptr || v->is_null()) return true;
  const int64_t g = int_at(object, "group_size", -1);
  if (g == 0) return true;  // written for formats without groups
  if (g < 1 || g > 65536) {
    diag.report("config-invalid", {.file = file}, fmt::format("group_size is {}", dump_json(*v, -1).substr(0, 40)), "a whole number from 1 to 65536");
    return false;
  }
  out = g;
  return true;
}

bool read_layers(const Json& object, const char* file, Words& out, Diagnostics& diag) {
  const Json* layers = find(object, "quantized_layers");
  if (layers == nullptr || layers->is_null()) return true;
  bool ok = layers->is_object();
  if (ok)
    for (auto it = layers->begin(); it != layers->end(); ++it) {
      const std::optional<std::string> algo = it->is_object() ? word(*it, "quant_algo") : std::nullopt;
      std::optional<int64_t> group;
      if (!algo) {
        ok = false;
        continue;
      }
      if (!read_group(*it, file, group, diag)) return false;
      out.layers[it.key()] = {*algo, group.value_or(0)};
    }
  if (!ok)
    diag.report("config-invalid", {.file = file}, fmt::format("quantized_layers is {}", dump_json(*layers, -1).substr(0, 60)),
                "an object of module names with a quant_algo each");
  return ok;
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
    ok &= read_group(*q, "hf_quant_config.json", hf.group, diag);
    ok &= read_layers(*q, "hf_quant_config.json", hf, diag);
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
    ok &= read_group(*q, "config.json", embedded.group, diag);
    ok &= read_layers(*q, "config.json", embedded, diag);
    if (!embedded.group)  // the only key of config_groups that the real data agree with
      if (const Json* groups = find(*q, "config_groups"); groups != nullptr && groups->is_object() && groups->size() == 1)
        if (const Json* weights = find(groups->front(), "weights"); weights != nullptr && weights->is_object())
          ok &= read_group(*weights, "config.json", embedded.group, diag);
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
  out.mixed = std::any_of(out.algos.begin(), out.algos.end(), [](const std::string& algo) { return algo == "MIXED_PRECISION"; });
  out.layers = hf.layers.empty() ? embedded.layers : hf.layers;
  out.layers_disagree = !hf.layers.empty() && !embedded.layers.empty() && hf.layers != embedded.layers;
  return ok;
}

namespace {

// "float 4 group" as config_groups have it.
Json numbers(std::string_view words, int32_t group) {
  Json j = Json::object();
  j["dynamic"] = false;
  j["num_bits"] = words.find('4') != words.npos ? 4 : 8;
  j["type"] = words.substr(0, words.find(' '));
  if (words.ends_with("group")) j["group_size"] = group;
  if (words.ends_with("channel")) j["strategy"] = "channel";
  return j;
}

// What an algorithm is called and how large its groups are, with the flags that AWQ's have: the same for a model and for one of its layers.
Json algorithm_words(const modelopt::Algorithm& a, int32_t group) {
  Json j = Json::object();
  j["quant_algo"] = a.label;
  if (a.words.group) j["group_size"] = group;
  if (a.words.awq) {
    j["has_zero_point"] = false;
    j["pre_quant_scale"] = true;
  }
  return j;
}

Json config_group(const modelopt::Algorithm& a, int32_t group, std::vector<std::string> targets) {
  Json j = Json::object();
  if (a.words.weights.empty()) {
    j["quant_algo"] = a.label;
  } else {
    if (!a.words.input.empty()) j["input_activations"] = numbers(a.words.input, group);
    j["weights"] = numbers(a.words.weights, group);
    if (a.words.awq && a.words.single) {
      j["has_zero_point"] = false;
      j["pre_quant_scale"] = true;
    }
  }
  std::sort(targets.begin(), targets.end());
  j["targets"] = std::move(targets);
  return j;
}

// Experts appear as their container, where all of them are of one kind.
std::vector<ModelOptDocuments::Layer> listed(const std::vector<ModelOptDocuments::Layer>& layers) {
  const auto container = [](const std::string& path) {
    const size_t at = path.find(".experts.");
    return at == path.npos ? std::string() : path.substr(0, at + 8);
  };
  const auto same = [](const ModelOptDocuments::Layer& a, const ModelOptDocuments::Layer& b) { return a.algorithm == b.algorithm && a.group == b.group; };
  std::map<std::string, const ModelOptDocuments::Layer*> of;  // null: of several kinds
  for (const ModelOptDocuments::Layer& l : layers) {
    const std::string name = container(l.path);
    if (name.empty()) continue;
    const auto [it, fresh] = of.emplace(name, &l);
    if (!fresh && it->second != nullptr && !same(*it->second, l)) it->second = nullptr;
  }
  std::vector<ModelOptDocuments::Layer> out;
  for (const ModelOptDocuments::Layer& l : layers) {
    const auto it = of.find(container(l.path));
    if (it == of.end() || it->second == nullptr) {
      out.push_back(l);
    } else if (it->second == &l) {
      out.push_back(l);
      out.back().path = it->first;
    }
  }
  return out;
}

}  // namespace

void write_modelopt_documents(const Package& p, const ModelOptDocuments& d, Export& out) {
  Json config = plain_config(p);
  if (d.layers.empty() && d.kv.empty()) {
    out.documents.emplace_back("config.json", std::make_shared<Json>(std::move(config)));
    return;
  }
  const bool one = !d.layers.empty() && !d.mixed;
  Json producer = Json::object();
  producer["name"] = "modelopt";
  producer["version"] = d.producer_version;
  Json excludes = Json::array(), layers = Json::object(), groups = Json::object();
  if (one) {
    std::vector<std::string> sorted = d.excludes;
    std::sort(sorted.begin(), sorted.end());
    excludes = sorted;
    const ModelOptDocuments::Layer& first = d.layers.front();
    if (first.algorithm->words.single) groups["group_0"] = config_group(*first.algorithm, first.group, {"Linear"});
  } else {
    std::vector<std::pair<ModelOptDocuments::Layer, std::vector<std::string>>> kinds;
    for (const ModelOptDocuments::Layer& l : listed(d.layers)) {
      layers[l.path] = algorithm_words(*l.algorithm, l.group);
      const auto same = [&](const auto& kind) { return kind.first.algorithm == l.algorithm && kind.first.group == l.group; };
      auto it = std::find_if(kinds.begin(), kinds.end(), same);
      if (it == kinds.end()) it = kinds.insert(kinds.end(), {l, {}});
      it->second.push_back(l.path);
    }
    for (auto& [layer, targets] : kinds) groups[fmt::format("group_{}", groups.size())] = config_group(*layer.algorithm, layer.group, std::move(targets));
  }

  Json embedded = Json::object();
  if (!groups.empty()) embedded["config_groups"] = std::move(groups);
  if (!layers.empty()) embedded["quantized_layers"] = layers;
  embedded["ignore"] = excludes;
  if (!d.layers.empty()) embedded["quant_algo"] = d.mixed ? std::string_view("MIXED_PRECISION") : d.layers.front().algorithm->label;
  if (d.kv == "FP8")
    embedded["kv_cache_scheme"] = numbers("float 8", 0);
  else if (!d.kv.empty())
    embedded["kv_cache_scheme"] = d.kv;
  embedded["producer"] = producer;
  embedded["quant_method"] = "modelopt";
  config["quantization_config"] = std::move(embedded);

  Json q = Json::object();
  q["quant_algo"] = nullptr;
  if (one) q = algorithm_words(*d.layers.front().algorithm, d.layers.front().group);
  if (d.mixed) q["quant_algo"] = "MIXED_PRECISION";
  q["kv_cache_quant_algo"] = d.kv.empty() ? Json(nullptr) : Json(d.kv);
  if (one)
    q["exclude_modules"] = std::move(excludes);
  else
    q["quantized_layers"] = std::move(layers);
  Json file = Json::object();
  file["producer"] = std::move(producer);
  file["quantization"] = std::move(q);
  out.documents.emplace_back("hf_quant_config.json", std::make_shared<Json>(std::move(file)));
  out.documents.emplace_back("config.json", std::make_shared<Json>(std::move(config)));
}

}  // namespace qb
