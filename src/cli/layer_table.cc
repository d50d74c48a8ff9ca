#include "cli/layer_table.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "base/diagnostics.h"
#include "base/json.h"

namespace qb::cli {
namespace {

// The name behind the layer's number: self_attn.q_proj.
std::string_view below_layer(std::string_view path, size_t layer) {
  const std::string number = fmt::format(".{}.", layer);
  const size_t at = path.find(number);
  return at == path.npos ? path : path.substr(at + number.size());
}

Json number(double x) {
  return std::isfinite(x) ? Json(x) : Json(nullptr);
}

}  // namespace

std::string layer_table(std::span<const LayerError> layers) {
  std::string out = fmt::format("{:>5}  {:>9}  {:>9}  {}\n", "layer", "its own", "so far", "linears");
  for (size_t i = 0; i < layers.size(); ++i) {
    std::string linears;
    for (const auto& [path, error] : layers[i].linears) linears += fmt::format("{}{} {:.4f}", linears.empty() ? "" : "  ", escape(below_layer(path, i)), error);
    out += fmt::format("{:>5}  {:>9.6f}  {:>9.6f}  {}\n", i, layers[i].own, layers[i].total, linears);
  }
  return out;
}

Json to_json(std::span<const LayerError> layers) {
  Json out = Json::array();
  for (size_t i = 0; i < layers.size(); ++i) {
    Json linears = Json::object();
    for (const auto& [path, error] : layers[i].linears) linears[path] = number(error);
    out.push_back({{"layer", i}, {"error", number(layers[i].own)}, {"total", number(layers[i].total)}, {"linears", std::move(linears)}});
  }
  return out;
}

}  // namespace qb::cli
