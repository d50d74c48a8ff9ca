// ModelOpt's two documents: hf_quant_config.json and quantization_config inside config.json.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "dialect/dialect.h"
#include "dialect/documents.h"
#include "dialect/modelopt_rows.h"

namespace qb {

struct ModelOptConfig {
  std::string from;                // the document that messages name
  std::vector<std::string> algos;  // distinct, hf_quant_config.json first; empty: null
  std::vector<std::string> kv;     // distinct
  std::vector<int64_t> groups;     // distinct
  std::vector<std::string> excludes;
  // Of MIXED_PRECISION: modules, or containers of experts, with the algorithm and group size (0: not said) of each.
  struct Layer {
    std::string algo;
    int64_t group = 0;
    friend bool operator==(const Layer&, const Layer&) = default;
  };
  std::map<std::string, Layer> layers;
  bool mixed = false;
  bool kv_disagrees = false, layers_disagree = false;
  ir::Producer producer;
};

// Problems: config-invalid.
bool read_modelopt_config(const Package&, ModelOptConfig&, Diagnostics&);

struct ModelOptDocuments {
  struct Layer {
    std::string path;
    const modelopt::Algorithm* algorithm;
    int32_t group;
  };
  std::vector<Layer> layers;                // every quantized module, in the order of the model
  bool mixed = false;                       // MIXED_PRECISION; otherwise all layers have one algorithm and group
  std::string kv;                           // FP8, NVFP4, ...; empty: none
  std::string producer_version = "0.47.0";  // whose conventions the documents follow
  std::vector<std::string> excludes;
};

// config.json (with quantization_config) and hf_quant_config.json, as the producer writes them.
void write_modelopt_documents(const Package&, const ModelOptDocuments&, Export&);

}  // namespace qb
