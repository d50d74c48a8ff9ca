#include "bridge/samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>

#include "arch/family.h"
#include "base/json.h"
#include "bridge/runtime.h"
#include "exec/xxh3.h"
#include "io/safetensors.h"

namespace qb {

Result<std::vector<std::vector<int32_t>>> read_input_ids(const std::string& path) {
  QB_ASSIGN(const std::string file, read_file(path));
  const std::span<const std::byte> bytes = std::as_bytes(std::span(file));
  Diagnostics diag;
  SafetensorsHeader header;
  uint64_t length = 0;
  const bool readable = file.size() >= 8 && parse_header_length(bytes.first(8), file.size(), path, length, diag) &&
                        parse_safetensors_header(bytes.subspan(8, length), file.size(), path, 0, header, diag);
  const TensorInfo* ids = nullptr;
  for (const TensorInfo& t : header.tensors)
    if (t.name == "input_ids") ids = &t;
  if (!readable || ids == nullptr || ids->shape.size() != 2 || (ids->dtype != Elem::i64 && ids->dtype != Elem::i32) || ids->elements() == 0)
    return Error{Errc::bad_input, fmt::format("{}: expected a safetensors file with input_ids [b, t] of I64 or I32", path)};
  std::vector<std::vector<int32_t>> rows(static_cast<size_t>(ids->shape[0]), std::vector<int32_t>(static_cast<size_t>(ids->shape[1])));
  const char* at = file.data() + ids->offset;
  for (auto& row : rows)
    for (int32_t& id : row) {
      int64_t wide = 0;
      int32_t narrow = 0;
      std::memcpy(ids->dtype == Elem::i64 ? static_cast<void*>(&wide) : static_cast<void*>(&narrow), at, ids->dtype == Elem::i64 ? 8 : 4);
      if (ids->dtype == Elem::i32) wide = narrow;
      if (wide < 0 || wide > INT32_MAX) return Error{Errc::bad_input, fmt::format("{}: {} is no token id", path, wide)};
      id = static_cast<int32_t>(wide);
      at += ids->dtype == Elem::i64 ? 8 : 4;
    }
  return rows;
}

Result<std::vector<std::vector<int32_t>>> read_samples(const Session& session, const std::string& path, const SampleLimits& limits) {
  int64_t most = limits.tokens;
  // Ours are cut to what the model has positions for; those of users are refused where they are longer.
  if (const Json* config = session.package.document("config.json"); path.empty() && config != nullptr)
    most = std::clamp<int64_t>(int_at(arch::text_config(*config), "max_position_embeddings", most), 1, most);
  const auto cut = [most](std::vector<int32_t>& ids) { ids.resize(std::min(ids.size(), static_cast<size_t>(most))); };
  std::vector<std::vector<int32_t>> out;
  if (path.ends_with(".safetensors")) {
    QB_ASSIGN(out, read_input_ids(path));
    out.resize(std::min(out.size(), static_cast<size_t>(limits.samples)));
    std::for_each(out.begin(), out.end(), cut);
    return out;
  }
  std::ifstream file;
  std::istringstream own{std::string(own_samples())};
  if (!path.empty()) file.open(path, std::ios::binary);
  if (!path.empty() && !file) return Error{Errc::not_found, fmt::format("{} is missing or unreadable", path)};
  std::istream& in = path.empty() ? static_cast<std::istream&>(own) : file;
  QB_ASSIGN(const text::Tokenizer tokenizer, load_tokenizer(session));
  std::string line;
  for (int64_t number = 1; static_cast<int64_t>(out.size()) < limits.samples && std::getline(in, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") == line.npos) continue;
    Result<std::vector<int32_t>> ids = tokenizer.encode(line, true);
    if (!ids) return Error{Errc::bad_input, fmt::format("{}, line {}: {}", path.empty() ? "the calibration text" : path, number, ids.error().what)};
    if (ids->empty()) continue;
    cut(*ids);
    out.push_back(std::move(*ids));
  }
  if (out.empty()) return Error{Errc::bad_input, fmt::format("{}: expected a sample in each line", path)};
  return out;
}

std::string samples_digest(std::string_view beside, std::span<const std::vector<int32_t>> samples) {
  Xxh3 hash(Isa::generic);
  const auto add = [&](std::string_view text) { hash.add(std::as_bytes(std::span(text))); };
  add(beside);
  for (const std::vector<int32_t>& sample : samples) {
    add(fmt::format("{}\n", sample.size()));
    hash.add(std::as_bytes(std::span(sample)));
  }
  return xxh3_hex(hash.digest());
}

}  // namespace qb
