#include "arch/family.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "arch/joined.h"
#include "arch/parallel.h"
#include "arch/structure.h"
#include "base/json.h"

namespace qb::arch {
namespace {

// Far above any model; keeps every product of a size with a sum of three inside 63 bits.
constexpr int64_t max_size = int64_t{1} << 30;
constexpr int64_t max_ranks = 4096;
constexpr int64_t max_layers = 10'000, max_experts = 200'000;  // experts: of all layers together

// The words of config.json for a number; families differ, no config has two of them.
std::span<const char* const> names_of(Key key) {
  static constexpr const char* const names[][3] = {
      {},
      {},
      {"hidden_size"},
      {"intermediate_size"},
      {"vocab_size"},
      {"num_attention_heads"},
      {"num_key_value_heads"},
      {"head_dim"},
      {"num_local_experts", "num_experts", "n_routed_experts"},
      {"moe_intermediate_size"},
      {"n_shared_experts"},
      {"shared_expert_intermediate_size"},
      {"q_lora_rank"},
      {"kv_lora_rank"},
      {"qk_nope_head_dim"},
      {"qk_rope_head_dim"},
      {"v_head_dim"},
  };
  const auto& row = names[static_cast<size_t>(key)];
  return std::span(row).first(static_cast<size_t>(std::find(std::begin(row), std::end(row), nullptr) - std::begin(row)));
}

// Numbers of config.json, each looked up when a row first asks for it: what no row needs may be absent.
class Sizes {
 public:
  Sizes(const Json& config, std::span<const Default> defaults, Diagnostics& diag) : config_(config), defaults_(defaults), diag_(diag) {}

  // Whether config.json has something here, other than null and 0.
  bool has(Key key) const {
    const Json* v = stated(key);
    return v != nullptr && *v != 0;
  }
  // 0 after a problem.
  int64_t of(Key key) {
    if (key == Key::one) return 1;
    int64_t& known = known_[static_cast<size_t>(key)];
    if (known < 0) known = look_up(key);
    return known;
  }
  int64_t of(const Dim& d) {
    int64_t sum = 0;
    for (Key k : d.terms)
      if (k != Key::none) sum += of(k);
    return sum == 0 ? 0 : of(d.times) * sum;
  }
  int64_t number(const char* key, int64_t fallback, int64_t most) {
    const Json* v = find(config_, key);
    const int64_t x = v == nullptr || v->is_null() ? fallback : int_at(config_, key, -1);
    if (x >= 0 && x <= most) return x;
    wrong(key, v, fmt::format("a whole number up to {}", most));
    return fallback;
  }
  bool ok() const { return ok_; }
  void wrong(std::string_view key, const Json* found, std::string expected) {
    diag_.report("config-invalid", {.file = "config.json"}, fmt::format("{} is {}", key, found == nullptr ? "absent" : dump_json(*found, -1).substr(0, 60)),
                 std::move(expected));
    ok_ = false;
  }

 private:
  // Its value, null when it is absent or null; `name` says under which word.
  const Json* stated(Key key, const char** name = nullptr) const {
    for (const char* word : names_of(key))
      if (const Json* v = find(config_, word); v != nullptr && !v->is_null()) {
        if (name != nullptr) *name = word;
        return v;
      }
    return nullptr;
  }
  int64_t look_up(Key key) {
    const std::span<const char* const> words = names_of(key);
    const char* word = words.empty() ? "" : words[0];
    const Json* v = stated(key, &word);
    if (v == nullptr) {
      for (const Default& d : defaults_)
        if (d.key == key) return d.value;
      if (key == Key::kv_heads) return of(Key::heads);
      if (key == Key::head_dim && of(Key::heads) > 0 && of(Key::hidden) >= of(Key::heads)) return of(Key::hidden) / of(Key::heads);
    }
    if (v != nullptr && v->is_number_integer()) {
      const int64_t x = int_at(config_, word, 0);
      if (x > 0 && x < max_size) return x;
    }
    wrong(word, v != nullptr ? v : find(config_, word), fmt::format("a whole number from 1 to {}", max_size - 1));
    return 0;
  }

  const Json& config_;
  std::span<const Default> defaults_;
  Diagnostics& diag_;
  std::array<int64_t, 17> known_ = [] {
    std::array<int64_t, 17> none{};
    none.fill(-1);
    return none;
  }();
  bool ok_ = true;
};

std::string with_number(std::string_view pattern, int64_t number) {
  const size_t at = pattern.find("{}");
  if (at == pattern.npos) return std::string(pattern);
  return fmt::format("{}{}{}", pattern.substr(0, at), number, pattern.substr(at + 2));
}

bool for_experts(const ModuleRow& row) {
  return row.suffix.find("{}") != row.suffix.npos;
}

class Builder {
 public:
  Builder(const Json& config, std::span<const TensorInfo> tensors, Sizes& sizes, Topology& out)
      : config_(config), tensors_(tensors), sizes_(sizes), out_(out) {}

  void global(const ModuleRow& row) {
    const auto placed = [&](std::string_view path) { return path.starts_with("model.") ? out_.body + std::string(path.substr(5)) : std::string(path); };
    const bool head = row.suffix == "lm_head";
    const std::string path = head ? out_.head : placed(row.suffix), norm = placed(row.input_norm);
    ModuleRow here = row;
    here.suffix = path;
    here.input_norm = norm;
    here.optional |= head && out_.tied_embeddings;
    add(here, "", -1, -1);
  }

  void layer(int64_t i, std::span<const ModuleRow> rows, bool optional) {
    const std::string prefix = fmt::format("{}.layers.{}.", out_.body, i);
    const bool is_sparse = sparse(i);
    const auto first = static_cast<int64_t>(out_.modules.size());
    const auto stands = [&](const ModuleRow& row) {
      if (row.layers != Layers::all && (row.layers == Layers::sparse) != is_sparse) return false;
      return (row.with == Key::none || sizes_.has(row.with)) && (row.without == Key::none || !sizes_.has(row.without));
    };
    for (size_t r = 0; r < rows.size(); ++r) {
      if (!stands(rows[r])) continue;
      if (!for_experts(rows[r])) {
        add(rows[r], prefix, i, -1, optional);
        continue;
      }
      size_t end = r;  // an expert has all its rows before the next expert
      while (end < rows.size() && for_experts(rows[end]) && stands(rows[end])) ++end;
      for (int64_t e = 0; e < sizes_.of(Key::experts); ++e)
        for (size_t of_one = r; of_one < end; ++of_one) add(rows[of_one], prefix, i, e, optional);
      r = end - 1;
    }
    std::vector<Module> one_by_one(std::make_move_iterator(out_.modules.begin() + first), std::make_move_iterator(out_.modules.end()));
    out_.modules.resize(static_cast<size_t>(first));
    for (Module& m : as_stored(std::move(one_by_one), *out_.family, tensors_)) out_.modules.push_back(std::move(m));
  }

  // Rows name each other by their usual spelling.
  void finish() {
    for (Module& m : out_.modules)
      if (const auto it = spelled_.find(m.fed_by); it != spelled_.end()) m.fed_by = it->second;
  }

 private:
  // Qwen counts every n-th layer and lists exceptions, DeepSeek begins with dense layers.
  bool sparse(int64_t i) {
    if (const Json* dense = find(config_, "mlp_only_layers"); dense != nullptr && dense->is_array())
      for (const Json& d : *dense)
        if (d.is_number_integer() && d.get<int64_t>() == i) return false;
    const int64_t step = std::max<int64_t>(int_at(config_, "decoder_sparse_step", 1), 1), every = std::max<int64_t>(int_at(config_, "moe_layer_freq", 1), 1);
    return (i + 1) % step == 0 && i >= int_at(config_, "first_k_dense_replace", 0) && i % every == 0 && sizes_.has(Key::experts);
  }

  bool given(Given g) const {
    switch (g) {
      case Given::unsaid:
        return false;
      case Given::always:
        return true;
      case Given::attention_bias:
        return bool_at(config_, "attention_bias", false);
      case Given::mlp_bias:
        return bool_at(config_, "mlp_bias", false);
      case Given::corrected:
        return string_at(config_, "topk_method") == "noaux_tc";
    }
    return false;
  }

  // Heads are units: their elements stay together, whether a size says "heads x (what each has)" or "elements of a head x (how many heads)".
  Split split_of(const ModuleRow& row) {
    if (row.parallel == Parallel::none) return {};
    const Dim& d = row.parallel == Parallel::rows ? row.k : row.n;
    const int64_t times = sizes_.of(d.times), all = sizes_.of(d);
    Split s;
    if (d.times != Key::one && d.times != Key::head_dim) {
      const int64_t count = d.times == Key::heads ? sizes_.of(d.times) : all;
      s.unit = count == 0 ? 1 : all / count;
      s.parts[0] = {d.times, count};
      return s;
    }
    s.unit = times;
    for (size_t i = 0; i < d.terms.size(); ++i)
      if (d.terms[i] != Key::none) s.parts[i] = {d.terms[i], sizes_.of(d.terms[i])};
    return s;
  }

  void add(const ModuleRow& row, const std::string& prefix, int64_t layer, int64_t expert, bool optional = false) {
    const auto full = [&](std::string_view suffix) { return suffix.empty() ? std::string() : prefix + with_number(suffix, expert); };
    Module m;
    m.path = full(row.suffix);
    for (std::string_view other : row.spelled)
      if (!other.empty() && !has_tensors(tensors_, m.path) && has_tensors(tensors_, full(other))) m.path = full(other);
    m.kind = row.kind;
    m.n = sizes_.of(row.n);
    m.k = sizes_.of(row.k);
    if (expert >= 0) m.experts = sizes_.of(Key::experts);
    m.parallel = row.parallel;
    m.split = split_of(row);
    m.fused = full(row.fused);
    m.stacked = full(row.stacked);
    m.input_norm = full(row.input_norm);
    m.fed_by = full(row.fed_by);
    if (m.path != full(row.suffix)) spelled_[full(row.suffix)] = m.path;
    m.optional = row.optional || optional;
    m.exempt = row.exempt;
    m.plain = row.plain;
    m.plain_given = given(row.plain_given) && !optional;
    m.bias_given = given(row.bias);
    m.layer = static_cast<int>(layer);
    m.expert = expert;
    if (expert >= 0) m.of_experts = row.suffix;
    out_.modules.push_back(std::move(m));
  }

  const Json& config_;
  std::span<const TensorInfo> tensors_;
  Sizes& sizes_;
  Topology& out_;
  std::map<std::string, std::string> spelled_;  // paths that are spelled otherwise
};

// Where a language model lies that is a part of another: the layouts of transformers before and since 4.52, and of exporters of the text part.
void find_body(std::span<const TensorInfo> tensors, Topology& out) {
  constexpr std::pair<const char*, const char*> places[] = {
      {"model", "lm_head"}, {"model.language_model", "lm_head"}, {"language_model.model", "language_model.lm_head"}, {"language_model", "lm_head"}};
  for (const auto& [body, head] : places)
    if (has_tensors(tensors, fmt::format("{}.layers", body))) {
      out.body = body;
      out.head = head;
      return;
    }
}

std::string known_families() {
  std::string s;
  for (const Family* f : families()) s += (s.empty() ? "" : ", ") + std::string(f->name);
  return s;
}

void describe_unknown(const Json& config, std::span<const TensorInfo> tensors, Topology& out, Diagnostics& diag) {
  // Sizes under the usual words; 0 where they are not there.
  const auto size = [&config](Key key) { return std::clamp<int64_t>(int_at(config, names_of(key)[0], 0), 0, max_size); };
  out.layers = std::clamp<int64_t>(int_at(config, "num_hidden_layers", 0), 0, max_layers);
  out.hidden = size(Key::hidden);
  out.heads = size(Key::heads);
  out.kv_heads = size(Key::kv_heads) > 0 ? size(Key::kv_heads) : out.heads;
  out.head_dim = size(Key::head_dim) > 0 ? size(Key::head_dim) : out.heads > 0 ? out.hidden / out.heads : 0;
  add_by_structure(tensors, "", out);
  diag.report(
      "family-unknown", {.file = "config.json"}, out.model_type.empty() ? "no model_type" : fmt::format("model_type {}", escape(out.model_type)),
      fmt::format("one of {}. Which linears share an input and a scale, how engines cut them and which sizes they should have is not known", known_families()));
}

}  // namespace

namespace {

bool describe_part(const Json& part, Topology& out, Diagnostics& diag) {
  const Ranks ranks{int_at(part, "tp", 1), int_at(part, "ep", 1)};
  const int64_t rank = int_at(part, "rank", -1);
  Uneven why{"ranks"};
  if (part.is_object() && is_sound(ranks) && ranks.count() <= max_ranks && rank >= 0 && rank < ranks.count() && take_share(out, ranks, rank, why)) return true;
  diag.report("config-invalid", {.file = "config.json"}, fmt::format("{} is {}", shard_key, dump_json(part, -1).substr(0, 60)),
              "tp, ep and a rank below the larger, which share the model equally");
  return false;
}

}  // namespace

const Family* find_family(std::string_view model_type) {
  for (const Family* f : families())
    if (f->name == model_type) return f;
  return nullptr;
}

const Json& text_config(const Json& config) {
  const Json* text = find(config, "text_config");
  return text != nullptr && text->is_object() && find_family(string_at(config, "model_type")) == nullptr ? *text : config;
}

bool describe(const Json& root, std::span<const TensorInfo> tensors, Topology& out, Diagnostics& diag) {
  const Json& config = text_config(root);
  const bool nested = &config != &root;
  out.model_type = string_at(config, "model_type", string_at(root, "model_type"));
  out.family = find_family(out.model_type);
  if (const Json* a = find(root, "architectures"); a != nullptr && a->is_array() && !a->empty() && a->front().is_string())
    out.architecture = a->front().get_ref<const std::string&>();
  out.tied_embeddings = bool_at(config, "tie_word_embeddings", bool_at(root, "tie_word_embeddings", out.family != nullptr && out.family->tied));
  find_body(tensors, out);
  if (out.family == nullptr) {
    describe_unknown(config, tensors, out, diag);
    return true;
  }
  const Family& family = *out.family;
  Sizes sizes(config, nested ? family.defaults : std::span<const Default>(), diag);
  out.hidden = sizes.of(Key::hidden);
  out.heads = sizes.of(Key::heads);
  if (const Json* layers = find(config, "num_hidden_layers");
      layers == nullptr || layers->is_null() || !layers->is_number_integer() || int_at(config, "num_hidden_layers", 0) < 1)
    sizes.wrong("num_hidden_layers", layers, fmt::format("a whole number from 1 to {}", max_layers));
  else
    out.layers = sizes.number("num_hidden_layers", 1, max_layers);
  if (!sizes.ok()) return false;
  out.kv_heads = sizes.of(Key::kv_heads);
  out.head_dim = sizes.of(Key::head_dim);
  const int64_t predictors = family.predictor.empty() ? 0 : sizes.number("num_nextn_predict_layers", 0, max_layers);
  if (sizes.has(Key::experts) && sizes.of(Key::experts) * (out.layers + predictors) > max_experts)
    sizes.wrong("the number of experts in all layers", nullptr, fmt::format("at most {}", max_experts));
  if (!sizes.ok()) return false;
  Builder build(config, tensors, sizes, out);
  build.global(family.global.front());
  for (int64_t i = 0; i < out.layers; ++i) {
    build.layer(i, family.layer, false);
    if (!sizes.ok()) return false;
  }
  for (int64_t i = out.layers; i < out.layers + predictors; ++i) {
    if (!has_tensors(tensors, fmt::format("{}.layers.{}", out.body, i))) continue;
    build.layer(i, family.layer, true);
    build.layer(i, family.predictor, true);
  }
  for (const ModuleRow& row : family.global.subspan(1)) build.global(row);
  build.finish();
  if (!sizes.ok()) return false;
  if (const Json* part = find(root, shard_key); part != nullptr && !describe_part(*part, out, diag)) return false;
  if (!nested) return true;
  const size_t before = out.modules.size();
  add_by_structure(tensors, out.body + ".layers.", out);
  for (size_t i = before; i < out.modules.size(); ++i) out.modules[i].exempt = true;
  if (out.modules.size() > before)
    diag.report("modules-by-structure", {.file = "config.json", .module = out.modules[before].path},
                fmt::format("{} modules beside the language model", out.modules.size() - before),
                "only the language model is known: the others stay as they are")
        .severity = Severity::note;
  return true;
}

}  // namespace qb::arch
