// ModelOpt's two documents: hf_quant_config.json and quantization_config inside config.json.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dialect/dialect.h"
#include "dialect/documents.h"

namespace qb {

struct ModelOptConfig {
  std::string from;                // the document that messages name
  std::vector<std::string> algos;  // distinct, hf_quant_config.json first; empty: null
  std::vector<std::string> kv;     // distinct
  std::vector<int64_t> groups;     // distinct
  std::vector<std::string> excludes;
  bool kv_disagrees = false;
  ir::Producer producer;
};

// Problems: config-invalid, algorithm-unsupported (MIXED_PRECISION).
bool read_modelopt_config(const Package&, ModelOptConfig&, Diagnostics&);

struct ModelOptDocuments {
  std::string row_label;  // empty: only the KV cache is quantized, or nothing
  std::optional<ir::Scheme> scheme;
  bool kv = false;
  std::string producer_version = "0.47.0";  // whose conventions the documents follow
  std::vector<std::string> excludes;
};

// config.json (with quantization_config) and hf_quant_config.json, as the producer writes them.
void write_modelopt_documents(const Package&, const ModelOptDocuments&, Export&);

}  // namespace qb
