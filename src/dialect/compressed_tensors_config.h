// quantization_config of compressed-tensors: groups of targets with a scheme each, an ignore list, a KV-cache scheme.
#pragma once

#include <string>
#include <vector>

#include "arch/match.h"
#include "dialect/dialect.h"

namespace qb {

struct CtGroup {
  std::string name, format;  // format: of the group, else of the whole config
  ir::Scheme scheme;
  std::vector<NameRule> targets;
  bool compressed = true;  // false: weights may be stored as they were, with the scales of their calibration beside them
};

// A transform of inputs or outputs that is applied when the model runs: an entry of a group of transform_config.
struct CtTransform {
  std::string group;
  bool of_outputs = false, inverse = false;
  bool hadamard = true;  // matrices of +-1, to be divided by the root of their size; false: as they are, and inverses are stored as such
  int64_t block = 0;     // 0: all inputs (outputs)
  std::vector<NameRule> targets, ignore;
};
// One that the weights hold already.
struct CtFusedTransform {
  std::string group;
  std::vector<NameRule> targets, ignore;
};

struct CtConfig {
  std::vector<CtTransform> transforms;
  std::vector<CtFusedTransform> fused;
  std::vector<CtGroup> groups;
  RuleList targets;                   // of all groups
  std::vector<size_t> target_groups;  // the position of each one's group
  std::vector<NameRule> ignore;
  std::optional<ir::KvCache> kv;
  std::string format, version;
  std::string sparsity;    // sparse-24-bitmask, sparse-bitmask; empty: weights are stored with their zeros
  bool compressed = true;  // what quantization_status says; old files call theirs frozen and hold codes all the same, so that the tensors decide
};

// Problems: config-invalid (a key with a wrong type, an unknown key of a scheme), algorithm-unsupported (names what is not read yet), pattern-invalid.
bool read_ct_config(const Json& quantization_config, RegexCompiler, CtConfig&, Diagnostics&);

Json ct_kv_args(const ir::KvCache&);
// Whether kv_cache_scheme can say it.
bool ct_holds_kv(const ir::KvCache&);

// One scheme as QuantizationArgs, all keys written out.
Json ct_args(const ir::QuantType&, const ir::Activation* activation);

// The library's word for how it stores a scheme unless it is told otherwise: float-quantized, naive-quantized, nvfp4-pack-quantized, int-quantized,
// pack-quantized; empty when this dialect has none.
std::string_view ct_format(const ir::Scheme&);

}  // namespace qb
