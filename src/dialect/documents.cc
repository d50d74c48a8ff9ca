#include "dialect/documents.h"

#include "base/json.h"

namespace qb {

Json plain_config(const Package& p) {
  Json config = *p.document("config.json");
  config.erase("quantization_config");
  config.erase("compression_config");
  return config;
}

}  // namespace qb
