// Every algorithm of ModelOpt: its label, what it means, and how its tensors are stored. One row each; reading, writing and both documents follow from it.
//
// Source of truth: what export_hf_checkpoint of nvidia-modelopt 0.47 writes, byte for byte.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dialect/row.h"

namespace qb::modelopt {

// Which of the many things that the documents hold an algorithm has there. `input` and `weights` are what config_groups say, in words: "float 8", "float 4
// group", "int 8 channel"; they are written as the producer does, also where they are wrong, and never read.
struct Words {
  std::string_view input = {}, weights = {};
  bool single = false;  // has config_groups also where it is the model's only algorithm
  bool group = false;   // has a group_size
  bool awq = false;     // has has_zero_point and pre_quant_scale
};

struct Algorithm {
  std::string_view label;
  std::string_view meaning;  // its scheme, with the usual group
  std::span<const PartRow> parts;
  Words words = {};
  bool prescale = false;  // inputs may be multiplied by pre_quant_scale first; which modules' are, the tensors say
  bool lowrank = false;   // there may be a low-rank part
  bool imported = false;  // never written: engines load another label that says the same
  bool marked = false;    // written only where some module has one of the two: otherwise another label says the same
};

std::span<const Algorithm> algorithms();  // several with one label, behind each other: it leaves something open that the tensors settle
std::span<const Row> rows();              // rows()[i] stores algorithms()[i]

const Algorithm& algorithm_of(const Row&);
ir::Scheme meaning_of(const Row&);
// The label as ModelOpt spells it: case does not count, and its internal names are accepted. Empty when unknown.
std::string_view canonical_label(std::string_view label);
std::span<const Row> rows_of(std::string_view label);  // empty when unknown
std::string known_labels();

// kv_cache_quant_algo and what it means; nothing when unknown. Biases are tensors: FP8 says nothing of them.
std::optional<ir::KvCache> kv_of(std::string_view algo);
std::string_view kv_algo(const ir::KvCache&);  // empty: none says it

}  // namespace qb::modelopt
