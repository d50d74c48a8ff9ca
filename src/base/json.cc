#include "base/json.h"

#include <unordered_set>
#include <vector>

namespace qb {

// ordered_map is a vector of pairs: appending is what its own insertion does, without its linear search.
void append(Json& object, std::string key, Json value) {
  auto& pairs = static_cast<std::vector<std::pair<const std::string, Json>>&>(object.get_ref<Json::object_t&>());
  pairs.emplace_back(std::move(key), std::move(value));
}

namespace {

// Builds a document from SAX events. An object's keys are collected in its vector, which keeps their order and makes no quadratic look-ups; a set beside it
// finds duplicates.
class Builder {
 public:
  Builder(Json& root, JsonError& error, int max_depth) : root_(root), error_(error), max_depth_(max_depth) {}

  bool null() { return put(nullptr); }
  bool boolean(bool v) { return put(v); }
  bool number_integer(int64_t v) { return put(v); }
  bool number_unsigned(uint64_t v) { return put(v); }
  bool number_float(double v, const std::string&) { return put(v); }
  bool string(std::string& v) { return put(std::move(v)); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& k) {
    if (!frames_.back().keys.insert(k).second) return fail("json-duplicate-key", "the key '" + k + "' appears twice in one object");
    frames_.back().key = std::move(k);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    return fail("json-invalid", "invalid JSON at byte " + std::to_string(position));
  }

 private:
  struct Frame {
    Json* value;
    std::string key;
    std::unordered_set<std::string> keys;
  };

  bool fail(const char* code, std::string what) {
    if (error_.code.empty()) error_ = {code, std::move(what)};
    return false;
  }

  Json* add(Json value) {
    if (frames_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Frame& f = frames_.back();
    if (f.value->is_array()) {
      auto& list = f.value->get_ref<Json::array_t&>();
      list.push_back(std::move(value));
      return &list.back();
    }
    append(*f.value, std::move(f.key), std::move(value));
    return &f.value->get_ref<Json::object_t&>().back().second;
  }

  template <class T>
  bool put(T&& value) {
    add(Json(std::forward<T>(value)));
    return true;
  }

  bool open(Json value) {
    if (static_cast<int>(frames_.size()) >= max_depth_) return fail("json-too-deep", "nested deeper than " + std::to_string(max_depth_) + " levels");
    frames_.push_back({add(std::move(value)), {}, {}});
    return true;
  }

  bool close() {
    frames_.pop_back();
    return true;
  }

  Json& root_;
  JsonError& error_;
  int max_depth_;
  std::vector<Frame> frames_;
};

}  // namespace

bool parse_json(std::string_view text, Json& out, JsonError& error, int max_depth) {
  Json root;
  error = {};
  Builder builder(root, error, max_depth);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    if (error.code.empty()) error = {"json-invalid", "invalid JSON"};
    return false;
  }
  out = std::move(root);
  return true;
}

std::string dump_json(const Json& value, int indent) { return value.dump(indent, ' ', false, Json::error_handler_t::replace); }

const Json* find(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  for (auto it = object.begin(); it != object.end(); ++it)
    if (it.key() == key) return &*it;
  return nullptr;
}

std::string_view string_at(const Json& object, std::string_view key, std::string_view fallback) {
  const Json* v = find(object, key);
  return v != nullptr && v->is_string() ? std::string_view(v->get_ref<const std::string&>()) : fallback;
}

int64_t int_at(const Json& object, std::string_view key, int64_t fallback) {
  const Json* v = find(object, key);
  if (v == nullptr || !v->is_number_integer()) return fallback;
  if (v->is_number_unsigned() && v->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return fallback;
  return v->get<int64_t>();
}

bool bool_at(const Json& object, std::string_view key, bool fallback) {
  const Json* v = find(object, key);
  return v != nullptr && v->is_boolean() ? v->get<bool>() : fallback;
}

}  // namespace qb
