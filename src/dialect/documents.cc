#include "dialect/documents.h"

#include <fmt/format.h>

#include "base/json.h"

namespace qb {

const Json* quantization_config(const Package& p) {
  const Json* config = p.document("config.json");
  const Json* q = config != nullptr ? find(*config, "quantization_config") : nullptr;
  return q != nullptr && q->is_object() ? q : nullptr;
}

Match match_quant_method(const Package& p, std::string_view method) {
  const Json* q = quantization_config(p);
  if (q != nullptr && string_at(*q, "quant_method") == method) return {Match::certain, fmt::format("config.json: quant_method is {}", method)};
  return {};
}

std::optional<ir::Scheme> noted_scheme(const Origin& origin) {
  const auto it = origin.document.find("scheme");
  if (it == origin.document.end()) return std::nullopt;
  Result<ir::Scheme> scheme = ir::parse_scheme(it->second);
  return scheme ? std::optional(*scheme) : std::nullopt;
}

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
