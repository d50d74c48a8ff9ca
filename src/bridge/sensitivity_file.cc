#include "bridge/sensitivity_file.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <iterator>

#include "base/json.h"
#include "io/posix_file.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view schema = "quantbridge.sensitivity/1";
constexpr uintmax_t largest_file = 256u << 20;

std::optional<double> number_at(const Json& object, std::string_view key) {
  const Json* v = find(object, key);
  if (v == nullptr || !v->is_number()) return std::nullopt;
  const double x = v->get<double>();
  return std::isfinite(x) && x >= 0 ? std::optional(x) : std::nullopt;
}

}  // namespace

Result<SensitivityFile> SensitivityFile::open(fs::path path, std::string digest) {
  SensitivityFile out;
  out.path_ = std::move(path);
  out.digest_ = std::move(digest);
  std::error_code ec;
  if (out.path_.empty() || !fs::exists(out.path_, ec)) return out;
  const auto foreign = [&] {
    return Error{Errc::exists, fmt::format("{} exists and holds no measurements of sensitivity; move it away or give another file", out.path_.native())};
  };
  if (fs::file_size(out.path_, ec) > largest_file || ec) return foreign();
  std::ifstream in(out.path_, std::ios::binary);
  if (!in) return Error{Errc::io, fmt::format("{} cannot be read", out.path_.native())};
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  Json document;
  JsonError error;
  if (!parse_json(text, document, error, 8) || !document.is_object() || string_at(document, "schema") != schema) return foreign();
  out.start_ = string_at(document, "digest") == out.digest_ ? Start::resumed : Start::restarted;
  if (out.start_ == Start::restarted) return out;
  if (const Json* groups = find(document, "groups"); groups != nullptr && groups->is_object())
    for (const auto& [group, schemes] : groups->items()) {
      if (!schemes.is_object()) continue;
      for (const auto& [scheme, seen] : schemes.items())
        if (seen.is_object()) out.groups_[group][scheme] = {number_at(seen, "error"), number_at(seen, "kl")};
    }
  if (const Json* mixtures = find(document, "mixtures"); mixtures != nullptr && mixtures->is_object())
    for (const auto& [name, value] : mixtures->items())
      if (const std::optional<double> kl = number_at(*mixtures, name)) out.mixtures_[name] = *kl;
  return out;
}

SensitivityFile::Seen SensitivityFile::seen(const std::string& group, const std::string& scheme) const {
  const auto at = groups_.find(group);
  if (at == groups_.end()) return {};
  const auto of = at->second.find(scheme);
  return of == at->second.end() ? Seen{} : of->second;
}

std::optional<double> SensitivityFile::mixture(const std::string& name) const {
  const auto at = mixtures_.find(name);
  return at == mixtures_.end() ? std::nullopt : std::optional(at->second);
}

Result<void> SensitivityFile::save() const {
  if (path_.empty()) return {};
  Json document = {{"schema", schema}, {"digest", digest_}, {"groups", Json::object()}, {"mixtures", Json::object()}};
  for (const auto& [group, schemes] : groups_) {
    Json of = Json::object();
    for (const auto& [scheme, seen] : schemes) {
      Json one = Json::object();
      if (seen.error) one["error"] = *seen.error;
      if (seen.divergence) one["kl"] = *seen.divergence;
      append(of, scheme, std::move(one));
    }
    append(document["groups"], group, std::move(of));
  }
  for (const auto& [name, kl] : mixtures_) append(document["mixtures"], name, kl);
  return replace_file(path_, dump_json(document, 1) + "\n");
}

}  // namespace qb
