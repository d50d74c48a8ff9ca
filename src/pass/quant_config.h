// What a user asks for, in one language: which modules get which scheme, and how.
//
//   {"default": "nvfp4", "moe": {"weight": "mxfp4", "activation": "mxfp8"}, "lm_head": null, "kv_cache": "fp8",
//    "ignore": ["model.layers.0.mlp.down_proj"], "overrides": [{"match": "re:.*k_proj", "scheme": "fp8_channel:fp8_token"}]}
//
// Goals: the words of vLLM's quantization_config, the shorthands of `quantize --list` and the grammar of docs/schemes.md, in a file, on the command line as a
// whole or key by key; strict, so that a slip is an error that names what was meant. Pure and total: any text gives a configuration or an error.
// Non-goals: what a model has (assignment.h), what can be made (quantize.h). Source of truth: docs/quantization.md.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ir/types.h"

namespace qb::pass {

// Which parts of a model are brought into another basis before anything is quantized (rotate.h).
struct Rotation {
  bool residual = false, values = false;
  bool any() const { return residual || values; }
};
// A word for it stands in front of an algorithm, or alone, and is about the whole model, whichever weight it is said of.
struct RotationWord {
  std::string_view name;
  Rotation means;
  std::string_view source;
};
inline constexpr std::array<RotationWord, 3> rotation_words{
    {{"hadamard", {true, true}, "QuaRot, SpinQuant's R1 and R2 with fixed signs: alone, or in front of others"},
     {"hadamard_residual", {true, false}, "the residual stream alone (R1)"},
     {"hadamard_values", {false, true}, "the values of attention alone (R2)"}}};
const RotationWord* find_rotation(std::string_view name);  // null: there is none

// What one entry says of the modules that it is for. What it leaves open stays as entries below it have it.
struct Says {
  struct Weight {
    std::optional<ir::QuantType> type;  // absent: plain numbers
    ir::Features features;              // of a shorthand that means some
    std::string recipe;                 // empty: the first one that makes the type
    bool implied = false;               // the recipe is a shorthand's: other numerics may be asked for
    std::string algorithm;              // that makes it from data; empty: the recipe alone does
    Rotation rotation = {};             // that stood in front of it
    // An algorithm as users write it: "gptq", "hadamard", "hadamard+awq+gptq". Which algorithms there are is for calib::parse_algorithms.
    void made_by(std::string_view text);
  };
  struct Input {
    std::optional<ir::Activation> type;  // absent: not quantized
  };
  std::optional<Weight> weight;
  std::optional<Input> input;
  bool nothing() const { return !weight && !input; }
};

// In the order of module_kind_names. moe: the experts of a mixture; linear: every other linear but the head.
enum class ModuleKind : uint8_t { linear, moe, lm_head, embedding };
inline constexpr std::array<std::string_view, 4> module_kind_names{"linear", "moe", "lm_head", "embedding"};

struct QuantConfig {
  Says everything;            // "default": linears and experts
  std::array<Says, 4> kinds;  // by ModuleKind
  struct Override {
    std::string match;  // a rule as in `ignore`
    Says says;
  };
  std::vector<Override> overrides;  // later ones win
  std::vector<std::string> ignore;  // names, shell patterns, "re:" regexes, fused names: these modules stay as they are, whatever else is said
  std::optional<Says::Input> kv_cache;

  // Every entry that may say something, for whoever checks all of them.
  std::vector<Says*> entries();
  // What one of them or another asks for.
  Rotation rotation() const;
};

// `text`: an object as above, or one name (a shorthand first, then a scheme), which is the default; empty: nothing. `settings` are keys of the object,
// "moe.activation=mxfp8" (values as JSON where they are lists, objects or null, otherwise as they are), or objects, and replace those of the text. Errors:
// invalid_argument, with the key, what is wrong and near names.
Result<QuantConfig> parse_quant_config(std::string_view text, std::span<const std::string> settings = {});

}  // namespace qb::pass
