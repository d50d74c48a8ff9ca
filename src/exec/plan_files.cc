#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "exec/run.h"

namespace qb {

std::vector<PlannedFile> plan_files(std::vector<prog::Program> programs, uint64_t max_shard) {
  std::vector<PlannedFile> files(1);
  for (prog::Program& p : programs) {
    uint64_t bytes = 0;
    for (const prog::Output& o : p.outputs) bytes += prog::output_bytes(o);
    PlannedFile& last = files.back();
    const bool full = !last.programs.empty() && (last.bytes > max_shard || bytes > max_shard - last.bytes);
    PlannedFile& file = full ? files.emplace_back() : last;
    file.bytes += bytes;
    file.programs.push_back(std::move(p));
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].name = files.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
  }
  return files;
}

// As transformers writes it: keys sorted, two spaces, a newline at the end.
std::string index_document(std::span<const PlannedFile> files) {
  if (files.size() < 2) return {};
  uint64_t total = 0;
  std::vector<std::pair<std::string_view, std::string_view>> names;
  for (const PlannedFile& f : files) {
    total += f.bytes;
    for (const prog::Program& p : f.programs) {
      for (const prog::Output& o : p.outputs) names.emplace_back(o.name, f.name);
    }
  }
  std::sort(names.begin(), names.end());
  // Of the ordered object's own members only emplace_back keeps building linear: its operator[] looks through all keys.
  Json::object_t map;
  map.reserve(names.size());
  for (const auto& [tensor, file] : names) map.emplace_back(std::string(tensor), std::string(file));
  Json document;
  document["metadata"]["total_size"] = total;
  document["weight_map"] = Json(std::move(map));
  return dump_json(document) + "\n";
}

}  // namespace qb
