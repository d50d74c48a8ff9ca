#include "dialect/documents.h"

#include "base/json.h"

namespace qb {

Json plain_config(const Package& p) {
  Json config = *p.document("config.json");
  config.erase("quantization_config");
  config.erase("compression_config");
  return config;
}

void note_producer(const ir::Checkpoint& c, Export& out) {
  if (!c.quant_algo.empty()) out.origin.document["label"] = c.quant_algo;
  if (!c.producer.version.empty()) out.origin.document["producer_version"] = c.producer.version;
}

}  // namespace qb
