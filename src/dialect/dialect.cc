#include "dialect/dialect.h"

#include <fmt/format.h>

#include "base/json.h"

namespace qb {

const Dialect* find_dialect(std::string_view name) {
  for (const Dialect* d : dialects())
    if (d->name == name) return d;
  return nullptr;
}

const Dialect* detect(const Package& package, Diagnostics& diag) {
  const Dialect* best = nullptr;
  Match::Level level = Match::no;
  for (const Dialect* d : dialects())
    if (const Match m = d->match(package); m.level > level) {
      best = d;
      level = m.level;
    }
  if (best != nullptr) return best;
  const Json* config = package.document("config.json");
  if (config == nullptr) return nullptr;  // the container has said so
  const Json* quant = find(*config, "quantization_config");
  std::string found = "a quantization_config without a known quant_method";
  if (quant != nullptr && !string_at(*quant, "quant_method").empty()) found = fmt::format("quant_method {}", escape(string_at(*quant, "quant_method")));
  diag.report("algorithm-unsupported", {.file = "config.json"}, found, "modelopt, compressed-tensors, fp8, awq, gptq, or an unquantized model");
  return nullptr;
}

bool is_fact(const TensorInfo& t) {
  const bool number = t.dtype == Elem::f32 || t.dtype == Elem::f16 || t.dtype == Elem::bf16 || t.dtype == Elem::i8;
  const bool shape = t.dtype == Elem::i64 && (t.shape.size() == 1 || t.shape.size() == 2) && t.elements() > 0 && t.elements() <= 4;  // of packed codes
  const bool starts = t.dtype == Elem::i64 && t.shape.size() == 1 && t.elements() > 0 && t.elements() <= (1 << 20) && t.name.ends_with(".row_offsets");
  return shape || starts || (number && t.shape.size() <= 4 && t.elements() == 1);
}

}  // namespace qb
