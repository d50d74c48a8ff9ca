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

std::vector<ir::Scheme> noted_schemes(const Origin& origin) {
  std::vector<ir::Scheme> out;
  const auto it = origin.document.find("scheme");
  if (it == origin.document.end()) return out;
  std::string_view words = it->second;
  while (!words.empty()) {
    const size_t space = words.find(' ');
    if (Result<ir::Scheme> scheme = ir::parse_scheme(words.substr(0, space)); scheme) out.push_back(*scheme);
    words = space == words.npos ? std::string_view() : words.substr(space + 1);
  }
  return out;
}

ir::Scheme as_noted(std::span<const ir::Scheme> noted, const ir::Scheme& now) {
  for (const ir::Scheme& s : noted) {
    if (!(s.weight == now.weight && s.features == now.features) || !s.input || s.input->when == ir::When::fixed) continue;
    if (!now.input || (now.input->type == s.input->type && now.input->when == s.input->when)) return s;
  }
  return now;
}

void SchemeChanges::add(const std::string& module, const ir::Scheme& from, const ir::Scheme& to, std::string_view reason) {
  const std::string before = to_string(from);
  if (from == to) {
    kept_.insert(before);
    return;
  }
  Export::SchemeChange& change = changes_[before];
  change.from = before;
  change.to = to_string(to);
  change.reason = reason;
  change.modules.push_back(module);
}

void SchemeChanges::write(Export& out) const {
  std::map<std::string, int> sources;
  for (const std::string& scheme : kept_) ++sources[scheme];
  for (const auto& [before, change] : changes_) ++sources[change.to];
  std::string note;
  for (const auto& [before, change] : changes_) {
    out.scheme_changes.push_back(change);
    if (sources[change.to] == 1) note += (note.empty() ? "" : " ") + before;
  }
  if (!note.empty()) out.origin.document["scheme"] = note;
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
