// What a model family's modules are called and how they hang together. Data, not code: one file per family, found through the manifest.
//
// A family is rows: one for each kind of module of a layer and of the whole model. A row says in which layers it stands, whether it is repeated for each
// expert, which sizes of config.json it has and how else producers spell it. What no row names is not guessed for a known family; of an unknown one, and of
// what lies beside the language model, the tensors themselves are all that is known (structure.h).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/json_fwd.h"
#include "io/safetensors.h"

namespace qb::arch {

// expert: the weights of all experts of a layer in one tensor, a parameter of the module that holds them: "<path>" is the tensor, "<path>_bias" and the like
// belong to it. No row has this kind: it is what rows for each expert become where they are stacked.
enum class Kind : uint8_t { linear, expert, embedding, norm, attention, other };
enum class Parallel : uint8_t { none, columns, rows, vocabulary };  // how engines cut it: columns = along n, rows = along k
enum class Layers : uint8_t { all, dense, sparse };                 // sparse: those whose feed-forward part is experts
// Whether each module of a row must have something beside its weight. attention_bias, mlp_bias: where config.json has this key as true; corrected: where its
// topk_method is noaux_tc.
enum class Given : uint8_t { unsaid, always, attention_bias, mlp_bias, corrected };

// A number of config.json; family.cc says under which names.
enum class Key : uint8_t {
  none,
  one,  // the number 1
  hidden,
  intermediate,
  vocab,
  heads,
  kv_heads,
  head_dim,
  experts,
  expert_intermediate,
  shared_experts,
  shared_intermediate,
  q_rank,
  kv_rank,
  nope_dim,
  rope_dim,
  v_dim,
};

// A size: `times` x (the sum of `terms`).
struct Dim {
  Key times = Key::one;
  std::array<Key, 3> terms{};
};

struct ModuleRow {
  // Below "model.layers.<i>." for rows of a layer, else the whole path. With "{}" the row is repeated for each expert, whose number stands there.
  std::string_view suffix;
  Kind kind;
  Dim n = {}, k = {};  // norms: n only
  Parallel parallel = Parallel::none;
  std::string_view fused = {};       // modules of one layer with the same word read the same input and are one matrix in engines: qkv_proj, gate_up_proj
  std::string_view input_norm = {};  // suffix of the norm whose output it reads, when it reads one
  bool optional = false;             // may be absent (QK norms of some configs, lm_head of tied models)
  bool exempt = false;               // no producer quantizes it, whether or not a list names it: routers
  Layers layers = Layers::all;
  Key with = Key::none, without = Key::none;  // there only if config.json has, or lacks, this number
  std::string_view plain = {};                // a tensor beside weight and bias that is never quantized
  Given plain_given = Given::unsaid, bias = Given::unsaid;
  std::array<std::string_view, 2> spelled{};  // other suffixes under which producers write it
  // Suffix of the linear whose outputs are its inputs, each multiplied by what others compute: of a gated unit its up projection; through attention, which
  // mixes tokens and repeats heads, that of the values. A row of that linear times x is a column of this one times x.
  std::string_view fed_by = {};
  // Of a row for each expert: the tensor that holds all experts of a layer, where they are stacked; in an expert's part of it lie all rows with the same word.
  std::string_view stacked = {};
};

struct Default {
  Key key;
  int64_t value;
};

// What lies in one matrix that is several modules: what reads one input (ModuleRow::fused), all experts of a layer (ModuleRow::stacked).
struct Joined {
  bool projections = false, experts = false;
};

// Rows name the modules one by one; a checkpoint may have them joined (arch/joined.h), as its tensors say.
struct Family {
  std::string_view name;  // model_type of config.json
  std::span<const std::string_view> architectures;
  std::span<const ModuleRow> layer;  // repeated num_hidden_layers times
  std::span<const ModuleRow> global;
  std::span<const ModuleRow> predictor = {};  // what a layer behind the last has besides, where there are any (num_nextn_predict_layers); all of it optional
  std::span<const Default> defaults = {};     // of the configuration class, which a text_config inside another config leaves out
  bool tied = false;                          // tie_word_embeddings, where config.json does not say
  float norm_plus = 0;                        // what norms add to their stored weights
  Joined usual = {};                          // as its releases have it
  // In a stack of experts the rows of an expert's parts take turns instead of following each other; plain numbers lie [experts, inputs, outputs].
  bool interleaved = false, inputs_first = false;
};

// The axis that `parallel` names, as ranks share it: parts behind each other (q, k and v in one matrix), each of so many units (heads) whose `unit` elements
// stay together.
struct Split {
  struct Part {
    Key what = Key::none;
    int64_t count = 0;
  };
  int64_t unit = 1;
  std::array<Part, 3> parts{};
};

// One module of a concrete model.
struct Module {
  std::string path;  // model.layers.0.self_attn.q_proj
  Kind kind = Kind::other;
  int64_t n = 0, k = 0;  // by config.json; norms: n elements; stacked experts: outputs and inputs of one; 0: not known
  int64_t experts = 0;   // of Kind::expert: how many the tensor holds; of a row for each expert: how many the layer has
  Parallel parallel = Parallel::none;
  Split split;
  std::string fused;       // model.layers.0.self_attn.qkv_proj, or empty
  std::string stacked;     // model.layers.0.mlp.experts.gate_up_proj, or empty
  std::string input_norm;  // path, or empty
  std::string fed_by;      // path, or empty
  bool optional = false;
  bool exempt = false;
  bool structural = false;                       // found from its tensors alone: no size is known, and whatever is no part of a quantized weight is plain
  std::string_view plain = {};                   // as in ModuleRow
  bool plain_given = false, bias_given = false;  // the model must have it
  int layer = -1;
  int64_t expert = -1;               // whose module it is, where the row is repeated for each
  std::string_view of_experts = {};  // the row's suffix, where the module is one expert's: its siblings in the layer have the same
  // What it is in place of: modules whose rows lie in it below each other; of Kind::expert, those of each expert in its part, row by row in turns where they
  // are `interleaved`. `inputs_first`: its parts lie turned, where they are plain numbers.
  std::vector<Module> parts = {};
  bool interleaved = false, inputs_first = false;
};

// Ranks are numbered from 0; there are max(tp, ep) of them, and the larger is a multiple of the smaller (arch/parallel.h).
struct Ranks {
  int64_t tp = 1, ep = 1;
  int64_t count() const { return tp > ep ? tp : ep; }
  friend bool operator==(const Ranks&, const Ranks&) = default;
};

struct Topology {
  const Family* family = nullptr;  // null: unknown
  std::string model_type;          // of config.json, or of its text_config
  std::string architecture;        // of config.json
  std::string body = "model";      // what the layers lie under: model.language_model where a text model is a part of another
  std::string head = "lm_head";
  std::vector<Module> modules;  // in the order of the model
  bool tied_embeddings = false;
  int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
  Ranks ranks;  // more than one: this is the part of `rank`, and sizes are those of its part
  int64_t rank = 0;
};

std::span<const Family* const> families();  // the generated manifest
const Family* find_family(std::string_view model_type);

// The part of config.json that is about the language model: its text_config, where it has one, or all of it.
const Json& text_config(const Json& config);

// What config.json of one rank's part says of it, beside the sizes of the whole model: {"tp": 2, "ep": 1, "rank": 0}.
inline constexpr const char* shard_key = "quantbridge_shard";

// Reads config.json; the tensors (sorted by name) say which spelling a module has, and all that is known of modules without rows. Problems: config-invalid (a
// size missing, not positive or absurd: false), family-unknown, structure-only.
bool describe(const Json& config, std::span<const TensorInfo> tensors, Topology& out, Diagnostics& diag);

}  // namespace qb::arch
