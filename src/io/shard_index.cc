#include "io/shard_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/json_sax.h"
#include "io/reporter.h"

namespace qb {
namespace {

enum class NameFault : uint8_t { none, leaves, odd };

// A name leaves the directory when it is absolute, climbs, or holds what some system takes for a separator.
NameFault judge_name(std::string_view name) {
  if (name.starts_with('/') || name.find('\\') != std::string_view::npos || name.find('\0') != std::string_view::npos) return NameFault::leaves;
  if (name.size() >= 2 && name[1] == ':') return NameFault::leaves;  // a drive letter
  NameFault fault = NameFault::none;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part == "..") return NameFault::leaves;
    if (part.empty() || part == ".") fault = NameFault::odd;
    begin = end + 1;
  }
  return fault;
}

class IndexEvents : public JsonHandler {
 public:
  explicit IndexEvents(Reporter& reporter) : reporter_(reporter) {}

  bool null() { return value("null"); }
  bool boolean(bool) { return value("a boolean"); }
  bool number_integer(number_integer_t) { return value("a number"); }
  bool number_unsigned(number_unsigned_t) { return value("a number"); }
  bool number_float(number_float_t, const string_t&) { return value("a number"); }
  bool string(string_t& v);
  bool start_object(size_t);
  bool start_array(size_t) { return depth_ < 2 && at_map_ ? value("an array") : enter(); }
  bool end_array() { return leave(); }
  bool end_object();
  bool key(string_t& v);

  struct Named {
    std::string tensor;
    size_t file;
  };
  std::vector<Named> named;
  std::map<std::string, size_t, std::less<>> files;  // to the order of first use
  bool has_map = false;

 private:
  static constexpr int max_depth = 64;
  static constexpr size_t refused = SIZE_MAX;

  bool value(std::string_view found);
  bool enter();
  bool leave() {
    --depth_;
    return true;
  }

  Reporter& reporter_;
  int depth_ = 0;
  bool at_map_ = false;  // the value to come, or the object we are in, is weight_map
  bool in_map_ = false;
  std::string key_;
  size_t last_ = refused;
  std::string last_name_;
};

bool IndexEvents::value(std::string_view found) {
  if (depth_ == 0) return fail("index-invalid", fmt::format("{} at the top", found));
  if (in_map_ && depth_ == 2) return fail("index-invalid", fmt::format("{} for the tensor '{}'", found, key_));
  if (at_map_ && depth_ == 1) return fail("index-invalid", fmt::format("weight_map is {}", found));
  return true;
}

bool IndexEvents::enter() {
  if (depth_ == 0) return fail("index-invalid", "an array at the top");
  if (in_map_ && depth_ == 2) return fail("index-invalid", fmt::format("no file name for the tensor '{}'", key_));
  if (depth_ >= max_depth) return fail("json-too-deep", fmt::format("byte {}: nested more than {} levels deep", position(), max_depth));
  ++depth_;
  return true;
}

bool IndexEvents::start_object(size_t) {
  if (depth_ == 0) {
    depth_ = 1;
    return true;
  }
  if (depth_ == 1 && at_map_) {
    in_map_ = has_map = true;
    depth_ = 2;
    return true;
  }
  return enter();
}

bool IndexEvents::end_object() {
  if (in_map_ && depth_ == 2) in_map_ = false;
  return leave();
}

bool IndexEvents::key(string_t& v) {
  if (depth_ == 1) {
    at_map_ = v == "weight_map";
    if (at_map_ && has_map) return fail("json-duplicate-key", "the key 'weight_map' twice");
  } else if (in_map_ && depth_ == 2) {
    key_ = std::move(v);
  }
  return true;
}

bool IndexEvents::string(string_t& v) {
  if (!in_map_ || depth_ != 2) return value("a string");
  if (v != last_name_ || named.empty()) {  // neighbours mostly share a file
    last_name_ = v;
    auto at = files.find(v);
    if (at == files.end()) {
      const NameFault fault = judge_name(v);
      if (fault == NameFault::leaves) reporter_.report("index-path-traversal", key_, v, "the name of a file in the checkpoint's directory");
      if (fault == NameFault::odd) reporter_.report("index-invalid", key_, v, "the plain name of a file");
      at = files.emplace(std::move(v), fault == NameFault::none ? files.size() : refused).first;
    }
    last_ = at->second;
  }
  named.push_back({std::move(key_), last_});
  return true;
}

}  // namespace

bool parse_shard_index(std::string_view text, ShardIndex& out, Diagnostics& diag) {
  Reporter reporter(diag, shard_index_name);
  out = {};
  IndexEvents events(reporter);
  JsonError error;
  bool parsed = parse_json_events(text, events, error);
  if (parsed && !events.has_map) {
    parsed = false;
    error = {"index-invalid", "no weight_map"};
  }
  std::sort(events.named.begin(), events.named.end(), [](const auto& a, const auto& b) { return a.tensor < b.tensor; });
  const auto twice = std::adjacent_find(events.named.begin(), events.named.end(), [](const auto& a, const auto& b) { return a.tensor == b.tensor; });
  if (parsed && twice != events.named.end()) {
    parsed = false;
    error = {"json-duplicate-key", fmt::format("the tensor '{}' twice in weight_map", twice->tensor)};
  }
  if (!parsed) {
    reporter.report(error.code, "", error.what, "a JSON object with a weight_map of tensor names to file names");
    return false;
  }
  // std::map hands the names over in order; positions change from first use to that order.
  std::map<size_t, size_t> position;
  for (const auto& [name, first_use] : events.files) {
    if (judge_name(name) != NameFault::none) continue;
    position.emplace(first_use, out.files.size());
    out.files.push_back(name);
  }
  out.tensors.reserve(events.named.size());
  for (auto& [tensor, file] : events.named) {
    if (const auto at = position.find(file); at != position.end()) out.tensors.push_back({std::move(tensor), at->second});
  }
  return true;
}

void merge_tensors(Package& package, const ShardIndex* index, std::span<const IndexedFile> files, Diagnostics& diag) {
  Reporter reporter(diag, index == nullptr ? std::string_view("model.safetensors") : shard_index_name);
  std::vector<TensorInfo>& all = package.tensors;
  std::sort(all.begin(), all.end(), [](const TensorInfo& a, const TensorInfo& b) { return std::tie(a.name, a.file) < std::tie(b.name, b.file); });
  const std::span<const ShardIndex::Entry> entries = index == nullptr ? std::span<const ShardIndex::Entry>() : std::span(index->tensors);
  const auto missing = [&](const ShardIndex::Entry& e, std::string found) {
    if (!files[e.file].complete) return;  // the file's own problem is reported
    reporter.report("index-tensor-missing", e.tensor, std::move(found), fmt::format("in {}, as the index says", index->files[e.file]));
  };

  size_t kept = 0;
  size_t next = 0;  // entry
  for (size_t i = 0; i < all.size();) {
    size_t end = i + 1;
    while (end < all.size() && all[end].name == all[i].name) ++end;
    for (; next < entries.size() && entries[next].tensor < all[i].name; ++next) missing(entries[next], "in no shard");
    const ShardIndex::Entry* entry = next < entries.size() && entries[next].tensor == all[i].name ? &entries[next++] : nullptr;

    size_t chosen = i;
    bool named = false;
    for (size_t k = i; k < end; ++k) {
      if (entry != nullptr && files[entry->file].id == all[k].file) chosen = k, named = true;
    }
    if (end - i > 1) {
      std::string where;
      for (size_t k = i; k < end; ++k) fmt::format_to(std::back_inserter(where), "{}{}", k == i ? "in " : " and ", package.file_name(all[k].file));
      reporter.report("tensor-duplicate", all[i].name, std::move(where),
                      named ? fmt::format("only in {}, as the index says", package.file_name(all[chosen].file)) : "in one file");
    }
    if (index != nullptr && entry == nullptr) {
      reporter.report("index-tensor-unlisted", all[i].name, fmt::format("in {} and not in the index", package.file_name(all[chosen].file)),
                      "every tensor in the index");
    } else if (entry != nullptr && !named) {
      missing(*entry, fmt::format("in {}", package.file_name(all[chosen].file)));
    }
    if (kept != chosen) all[kept] = std::move(all[chosen]);
    ++kept;
    i = end;
  }
  for (; next < entries.size(); ++next) missing(entries[next], "in no shard");
  all.erase(all.begin() + static_cast<std::ptrdiff_t>(kept), all.end());
}

}  // namespace qb
