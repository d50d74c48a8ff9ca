#include "arch/family.h"

#include <fmt/format.h>

#include "base/json.h"

namespace qb::arch {
namespace {

// Far above any model; keeps every product of two sizes inside 63 bits.
constexpr int64_t max_size = int64_t{1} << 31;

struct Sizes {
  int64_t hidden = 0, intermediate = 0, vocab = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t of(Dim d) const {
    switch (d) {
      case Dim::none:
        return 0;
      case Dim::hidden:
        return hidden;
      case Dim::intermediate:
        return intermediate;
      case Dim::vocab:
        return vocab;
      case Dim::q_width:
        return heads * head_dim;
      case Dim::kv_width:
        return kv_heads * head_dim;
      case Dim::head_dim:
        return head_dim;
    }
    return 0;
  }
};

std::string known_families() {
  std::string s;
  for (const Family* f : families()) s += (s.empty() ? "" : ", ") + std::string(f->name);
  return s;
}

// A size of config.json; `fallback` 0 means that it must be there.
int64_t size_of(const Json& config, const char* key, int64_t fallback, bool& ok, Diagnostics& diag) {
  const Json* v = find(config, key);
  if ((v == nullptr || v->is_null()) && fallback > 0) return fallback;
  const int64_t x = v == nullptr ? 0 : int_at(config, key, 0);
  if (x > 0 && x < max_size) return x;
  diag.report("config-invalid", {.file = "config.json"}, fmt::format("{} is {}", key, v == nullptr ? "absent" : dump_json(*v, -1).substr(0, 60)),
              fmt::format("a whole number from 1 to {}", max_size - 1));
  ok = false;
  return 0;
}

void append(const ModuleRow& row, const Sizes& sizes, int layer, bool tied, Topology& out) {
  const std::string prefix = layer < 0 ? "" : fmt::format("model.layers.{}.", layer);
  Module m;
  m.path = prefix + std::string(row.suffix);
  m.kind = row.kind;
  m.n = sizes.of(row.n);
  m.k = sizes.of(row.k);
  m.parallel = row.parallel;
  if (!row.fused.empty()) m.fused = prefix + std::string(row.fused);
  if (!row.input_norm.empty()) m.input_norm = prefix + std::string(row.input_norm);
  m.optional = row.optional || (tied && row.suffix == "lm_head");
  m.layer = layer;
  out.modules.push_back(std::move(m));
}

}  // namespace

const Family* find_family(std::string_view model_type) {
  for (const Family* f : families())
    if (f->name == model_type) return f;
  return nullptr;
}

bool describe(const Json& config, Topology& out, Diagnostics& diag) {
  const std::string_view model_type = string_at(config, "model_type");
  out.family = find_family(model_type);
  if (const Json* a = find(config, "architectures"); a != nullptr && a->is_array() && !a->empty() && a->front().is_string())
    out.architecture = a->front().get_ref<const std::string&>();
  if (out.family == nullptr) {
    diag.report("family-unsupported", {.file = "config.json"}, model_type.empty() ? "no model_type" : fmt::format("model_type {}", model_type),
                fmt::format("one of {}", known_families()));
    return false;
  }
  bool ok = true;
  Sizes s;
  s.hidden = size_of(config, "hidden_size", 0, ok, diag);
  s.intermediate = size_of(config, "intermediate_size", 0, ok, diag);
  s.vocab = size_of(config, "vocab_size", 0, ok, diag);
  s.layers = size_of(config, "num_hidden_layers", 0, ok, diag);
  s.heads = size_of(config, "num_attention_heads", 0, ok, diag);
  if (!ok) return false;
  s.kv_heads = size_of(config, "num_key_value_heads", s.heads, ok, diag);
  s.head_dim = size_of(config, "head_dim", s.hidden / s.heads, ok, diag);
  if (ok && s.layers > 10'000) {
    diag.report("config-invalid", {.file = "config.json"}, fmt::format("num_hidden_layers is {}", s.layers), "at most 10000");
    ok = false;
  }
  if (!ok) return false;
  out.tied_embeddings = bool_at(config, "tie_word_embeddings", false);
  out.layers = s.layers;
  out.heads = s.heads;
  out.kv_heads = s.kv_heads;
  out.head_dim = s.head_dim;
  out.hidden = s.hidden;
  append(out.family->global.front(), s, -1, out.tied_embeddings, out);
  for (int i = 0; i < s.layers; ++i)
    for (const ModuleRow& row : out.family->layer) append(row, s, i, out.tied_embeddings, out);
  for (const ModuleRow& row : out.family->global.subspan(1)) append(row, s, -1, out.tied_embeddings, out);
  return true;
}

}  // namespace qb::arch
