// What a model family's modules are called and how they hang together. Data, not code: one file per family, found through the manifest.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/json_fwd.h"

namespace qb::arch {

enum class Kind : uint8_t { linear, expert, embedding, norm, attention, other };
enum class Parallel : uint8_t { none, columns, rows, vocabulary };  // how engines cut it: columns = along n, rows = along k

// A size as an expression over config.json: product of up to two terms.
enum class Dim : uint8_t { none, hidden, intermediate, vocab, q_width, kv_width, head_dim };

struct ModuleRow {
  std::string_view suffix;  // below "model.layers.<i>." for per-layer rows, else the whole path
  Kind kind;
  Dim n, k;  // norms: n only
  Parallel parallel = Parallel::none;
  std::string_view fused = {};       // modules of one layer with the same word read the same input and are one matrix in engines: qkv_proj, gate_up_proj
  std::string_view input_norm = {};  // suffix of the norm whose output it reads, when it reads one
  bool optional = false;             // may be absent (QK norms of some configs, lm_head of tied models)
};

struct Family {
  std::string_view name;  // model_type of config.json
  std::span<const std::string_view> architectures;
  std::span<const ModuleRow> layer;  // repeated num_hidden_layers times
  std::span<const ModuleRow> global;
};

// One module of a concrete model.
struct Module {
  std::string path;  // model.layers.0.self_attn.q_proj
  Kind kind = Kind::other;
  int64_t n = 0, k = 0;  // by config.json; norms: n elements
  Parallel parallel = Parallel::none;
  std::string fused;       // model.layers.0.self_attn.qkv_proj, or empty
  std::string input_norm;  // path, or empty
  bool optional = false;
  int layer = -1;
};

struct Topology {
  const Family* family = nullptr;
  std::string architecture;     // of config.json
  std::vector<Module> modules;  // in the order of the model
  bool tied_embeddings = false;
  int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
};

std::span<const Family* const> families();  // the generated manifest
const Family* find_family(std::string_view model_type);

// Reads config.json. Problems: config-invalid (a size missing, not positive or absurd), family-unsupported (names the model_type and the known ones).
bool describe(const Json& config, Topology& out, Diagnostics& diag);

}  // namespace qb::arch
