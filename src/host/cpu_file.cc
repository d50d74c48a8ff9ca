// A processor as a file describes it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/diagnostics.h"
#include "base/json.h"
#include "host/cpu.h"

namespace qb::host {
namespace {

constexpr std::array<std::string_view, 8> keys{"name", "what", "features", "other_features", "cores", "clock_ghz", "read_gbs", "source"};

Error bad(std::string_view key, std::string_view expected) {
  return {Errc::invalid_argument, fmt::format("the description of a processor: '{}' must be {}", escape(key), expected)};
}

// Empty where the key is absent.
Result<std::vector<std::string>> words_of(const Json& j, std::string_view key) {
  std::vector<std::string> out;
  const Json* list = find(j, key);
  if (list == nullptr) return out;
  if (!list->is_array()) return bad(key, "a list of words");
  for (const Json& word : *list) {
    if (!word.is_string()) return bad(key, "a list of words");
    out.push_back(word.get<std::string>());
  }
  return out;
}

Result<Feature> features_of(const Json& j) {
  QB_ASSIGN(const std::vector<std::string> words, words_of(j, "features"));
  Feature all = Feature::none;
  for (const std::string& word : words) {
    const std::optional<Feature> one = feature_named(word);
    if (!one)
      return bad(
          "features",
          fmt::format("of avx2, avx_vnni, avx512, avx512_bf16, avx512_vnni, amx_int8, amx_bf16, but has '{}' (what no kernel asks for goes to other_features)",
                      escape(word)));
    all = all | *one;
  }
  if (all != Feature::none && !covers(all, Feature::avx2)) return bad("features", "with avx2 where it has a wider one");
  if (covers(Feature::avx2 | Feature::avx_vnni, all) || covers(all, Feature::avx512)) return all;
  return bad("features", "with avx512 where it has avx512_bf16, avx512_vnni or tiles");
}

Result<double> number_of(const Json& j, std::string_view key, double most) {
  const Json* v = find(j, key);
  if (v == nullptr || !v->is_number() || !(v->get<double>() > 0) || v->get<double>() > most) return bad(key, fmt::format("a number above 0, at most {}", most));
  return v->get<double>();
}

}  // namespace

Result<Cpu> read_cpu(std::string_view json) {
  Json j;
  JsonError error;
  if (!parse_json(json, j, error)) return Error{Errc::invalid_argument, fmt::format("the description of a processor: {}", error.what)};
  if (!j.is_object()) return Error{Errc::invalid_argument, "the description of a processor is no JSON object"};
  for (const auto& [key, value] : j.items())
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) return bad(key, fmt::format("one of {}", fmt::join(keys, ", ")));
  Cpu cpu{.name = std::string(string_at(j, "name")), .what = std::string(string_at(j, "what"))};
  if (cpu.name.empty()) return bad("name", "a word");
  QB_ASSIGN(cpu.features, features_of(j));
  QB_ASSIGN(cpu.other, words_of(j, "other_features"));
  QB_ASSIGN(const double cores, number_of(j, "cores", 4096));
  if (cores != std::floor(cores)) return bad("cores", "a whole number");
  cpu.cores = static_cast<int>(cores);
  QB_ASSIGN(cpu.clock_ghz, number_of(j, "clock_ghz", 100));
  QB_ASSIGN(cpu.read_gbs, number_of(j, "read_gbs", 100000));
  return cpu;
}

}  // namespace qb::host
