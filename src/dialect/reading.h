// The common part of reading a package: modules from the family, tensors given to modules, each claimed exactly once.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "arch/match.h"
#include "dialect/dialect.h"

namespace qb {

class Reading {
 public:
  Reading(const ReadContext& read_context, ir::Checkpoint& checkpoint, Diagnostics& diagnostics) : context(read_context), out(checkpoint), diag(diagnostics) {}

  // Reads config.json into the topology and gives every tensor to the module with the longest matching path. `as`, where there is one, says what a tensor is
  // called elsewhere: by that name it is given to a module, and written. False: no config, or one without the sizes of its family.
  bool begin(const std::function<std::string(std::string_view)>& as = {});

  // A tensor of the module by the word behind "<path>."; null when absent. Of stacked experts "<path>" is the "weight", and words follow "<path>_". Claiming
  // marks it as explained.
  const TensorInfo* find(const ir::Module& module, std::string_view word) const;
  void claim(const TensorInfo& tensor);
  bool claimed(const TensorInfo& tensor) const;
  std::vector<const TensorInfo*> tensors_of(const ir::Module& module) const;

  // A Stored for a scalar, or for rows x cols elements behind each other; the value comes from the facts.
  ir::Stored stored(const TensorInfo& tensor, ir::Role role, Elem elem, int64_t rows, int64_t cols) const;

  // Gives every linear and embedding that has tensors to `read_weight`, then reads the rest, checks the rules and finishes. Stacked experts are given to
  // `read_stack`, where the dialect stores quantized ones; those for which it returns false, and those of all other dialects, are plain.
  void read_modules(const std::function<void(ir::Module&)>& read_weight, const std::function<bool(ir::Module&)>& read_stack = {});

  // Claims `weight` (plain floats), checks its dtype and shape. False when there is none.
  bool read_plain(ir::Module& module);
  void read_bias(ir::Module& module);
  // KV scales (and biases) under every name that engines and producers use; `canonical` says which spelling is this dialect's own. `announced` is what the
  // documents say of the cache. Sets out.kv when there is any.
  enum class KvNames : uint8_t { projection, attention };  // k_proj.k_scale, or <attn>.k_scale
  void read_kv_scales(KvNames canonical, const std::optional<ir::KvCache>& announced, std::string_view announced_by);

  // The rule that covers a module, or null; counts the hit.
  void set_rules(std::vector<NameRule> rules, std::string from);
  const NameRule* excluded_by(const ir::Module& module);
  // Why a weight of a quantized model is plain, where lists need not name embeddings and the head: the rule that covers it, or what report_unlisted() says.
  std::string why_plain(const ir::Module& module, const NameRule* rule);
  // Why a weight has a scheme: `why`, and the rule that would have left it out, which is reported.
  std::string why_quantized(const ir::Module& module, const NameRule* rule, std::string why);
  // A quantized embedding table that is also the head is reported.
  void report_tied_embedding(const ir::Module& module);
  // What messages about the module name: its weight, its first tensor, or itself.
  std::string_view named_tensor(const ir::Module& module) const;
  // A plain linear that no rule covers although the model is quantized: reports it and says why it has no scheme.
  std::string report_unlisted(const ir::Module& module);

  ir::Module* module(std::string_view path);

  const ReadContext& context;
  ir::Checkpoint& out;
  Diagnostics& diag;
  Origin origin;

 private:
  // What no scheme applies to: norms, rotary buffers, and what else a module has beside a weight.
  void read_others(ir::Module& module);
  void report_layers_without(int64_t others_with_kv_scales);
  // Every tensor claimed, every module of the family present, sizes equal to the config's: the verifier's structural half.
  void finish();
  // Entries that name nothing, fused names, foreign prefixes: reported once all modules are decided.
  void check_rules();

  struct Owned {
    const TensorInfo* tensor;
    std::string_view word;  // as find() takes it
  };
  // The stacked experts that a tensor belongs to, by its name; false when it is no parameter of any.
  bool own_as_parameter(const TensorInfo& tensor, std::string_view name);
  std::vector<std::string> names_;  // of the package's tensors elsewhere; empty: they have those names
  std::unordered_map<std::string_view, size_t> module_index_;
  std::vector<std::vector<Owned>> owned_;  // by module
  std::vector<bool> claimed_;              // by position in Package::tensors
  enum class Meant : uint8_t { no, fused, prefix, container };
  Meant meant_by(const NameRule& rule, const ir::Module& module) const;
  void names_that_mean(const ir::Module& module, const std::function<void(std::string_view)>& found) const;
  RuleList rules_;
  std::unordered_map<std::string_view, size_t> literals_;  // entries without wildcards, by text: the first of each
  std::vector<int> hits_;
  std::string rules_from_;
};

}  // namespace qb
