#include "dialect/origin.h"

#include <fmt/format.h>

#include <charconv>
#include <map>

#include "base/json.h"

namespace qb {
namespace {

std::string hex(std::string_view bytes) {
  std::string out;
  for (char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

bool unhex(std::string_view text, std::string& out) {
  if (text.size() % 2 != 0 || text.size() > 32) return false;
  for (size_t i = 0; i < text.size(); i += 2) {
    unsigned v = 0;
    auto [end, err] = std::from_chars(text.data() + i, text.data() + i + 2, v, 16);
    if (err != std::errc() || end != text.data() + i + 2) return false;
    out += static_cast<char>(v);
  }
  return true;
}

std::optional<std::vector<int64_t>> parse_shape(std::string_view text) {
  std::vector<int64_t> shape;
  while (!text.empty()) {
    int64_t d = 0;
    auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), d);
    if (err != std::errc() || d < 0 || shape.size() == 8) return std::nullopt;
    shape.push_back(d);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (!text.empty() && text.front() != ',') return std::nullopt;
    if (!text.empty()) text.remove_prefix(1);
  }
  return shape;
}

}  // namespace

std::string to_text(const OriginEntry& e) {
  std::string out;
  const auto add = [&](std::string_view key, const std::string& value) { out += fmt::format("{}{}={}", out.empty() ? "" : ";", key, value); };
  if (e.absent) add("absent", "1");
  if (e.dtype) add("dtype", std::string(info(*e.dtype).safetensors));
  if (e.shape) add("shape", fmt::format("{}", fmt::join(*e.shape, ",")));
  if (!e.bits.empty()) add("bits", hex(e.bits));
  return out;
}

OriginEntry parse_origin_entry(std::string_view text) {
  OriginEntry e;
  if (text.size() > 128) return e;
  while (!text.empty()) {
    const size_t end = std::min(text.find(';'), text.size());
    const std::string_view item = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t eq = item.find('=');
    if (eq == item.npos) continue;
    const std::string_view key = item.substr(0, eq), value = item.substr(eq + 1);
    if (key == "dtype") e.dtype = elem_from_safetensors(value);
    if (key == "shape") e.shape = parse_shape(value);
    if (key == "absent") e.absent = value == "1";
    if (key == "bits" && !unhex(value, e.bits)) e.bits.clear();
  }
  return e;
}

Origin read_origin(const Package& package) {
  Origin out;
  for (const PackageFile& file : package.files) {
    for (const auto& [key, value] : file.metadata) {
      if (key != origin_key) continue;
      Json root;
      JsonError error;
      if (!parse_json(value, root, error, 4) || !root.is_object()) continue;
      const auto copy = [&](const char* name, std::unordered_map<std::string, std::string>& to) {
        const Json* entries = find(root, name);
        if (entries == nullptr || !entries->is_object()) return;
        for (auto it = entries->begin(); it != entries->end(); ++it)
          if (it->is_string()) to.emplace(it.key(), it->get_ref<const std::string&>());
      };
      out.dialect = std::string(string_at(root, "dialect"));
      copy("tensors", out.tensors);
      copy("document", out.document);
    }
  }
  return out;
}

std::string origin_metadata(const Origin& origin, const std::vector<std::string>& tensors) {
  Json root = Json::object();
  root["dialect"] = origin.dialect;
  Json document = Json::object(), entries = Json::object();
  for (const auto& [k, v] : std::map<std::string, std::string>(origin.document.begin(), origin.document.end())) append(document, k, v);
  for (const std::string& t : tensors)
    if (auto it = origin.tensors.find(t); it != origin.tensors.end()) append(entries, t, it->second);
  if (!document.empty()) root["document"] = std::move(document);
  if (!entries.empty()) root["tensors"] = std::move(entries);
  return dump_json(root, -1);
}

}  // namespace qb
