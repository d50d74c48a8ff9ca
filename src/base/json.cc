#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/diagnostics.h"
#include "base/json_sax.h"

namespace qb {

bool JsonHandler::fail(std::string_view code, std::string what) {
  if (error_.code.empty()) error_ = {std::string(code), std::move(what)};
  return false;
}

bool JsonHandler::parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) {
  // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error while ...; last read: '...'": the quoted tail may be as long as the text.
  std::string_view what = e.what();
  if (const size_t end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
  constexpr size_t enough = 200;
  const bool cut = what.size() > enough;
  return fail("json-invalid", fmt::format("byte {}: {}{}", position, escape(what.substr(0, enough)), cut ? "..." : ""));
}

bool is_plain_json_text(std::string_view text, JsonError& error) {
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    error = {"json-invalid", fmt::format("byte {}: a NUL byte", nul)};
    return false;
  }
  if (text.starts_with("\xEF\xBB\xBF")) {
    error = {"json-invalid", "byte 0: a byte order mark"};
    return false;
  }
  return true;
}

// The library's own insertion searches the object for the key first; its map is a vector of pairs, which has the plain kind too.
void append(Json& object, std::string key, Json value) {
  std::vector<Json::object_t::value_type>& members = *object.get_ptr<Json::object_t*>();
  members.emplace_back(std::move(key), std::move(value));
}

namespace {

// Builds the document from events. Neither building nor duplicate detection depends on a hash, so no text takes more than n log n.
class Builder : public JsonHandler {
 public:
  explicit Builder(int max_depth) : max_depth_(max_depth) {}

  bool null() { return put(Json(nullptr)); }
  bool boolean(bool v) { return put(Json(v)); }
  bool number_integer(number_integer_t v) { return put(Json(v)); }
  bool number_unsigned(number_unsigned_t v) { return put(Json(v)); }
  bool number_float(number_float_t v, const string_t&) { return put(Json(v)); }
  bool string(string_t& v) { return put(Json(std::move(v))); }

  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool key(string_t& v) {
    key_ = std::move(v);
    return true;
  }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  bool end_object() {
    const bool ok = keys_differ(*open_.back()->get_ptr<Json::object_t*>());
    open_.pop_back();
    return ok;
  }

  Json& root() { return root_; }

 private:
  bool open(Json empty) {
    if (open_.size() >= static_cast<size_t>(std::max(max_depth_, 0))) {
      return fail("json-too-deep", fmt::format("byte {}: nested more than {} levels deep", position(), max_depth_));
    }
    Json* at = insert(std::move(empty));
    open_.push_back(at);
    return true;
  }

  bool put(Json value) {
    insert(std::move(value));
    return true;
  }

  Json* insert(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (auto* array = parent.get_ptr<Json::array_t*>()) return &array->emplace_back(std::move(value));
    append(parent, std::move(key_), std::move(value));
    return &parent.get_ptr<Json::object_t*>()->back().second;
  }

  // Once for each object, when it is complete.
  bool keys_differ(const Json::object_t& object) {
    if (object.size() < 2) return true;
    order_.clear();
    for (const auto& m : object) order_.push_back(m.first);
    std::sort(order_.begin(), order_.end());
    const auto twice = std::adjacent_find(order_.begin(), order_.end());
    if (twice == order_.end()) return true;
    return fail("json-duplicate-key", fmt::format("byte {}: the object that ends here holds the key '{}' twice", position(), escape(twice->substr(0, 200))));
  }

  int max_depth_;
  Json root_;
  std::vector<Json*> open_;  // into root_; a container gets no further member while one of its members is open, so none moves
  std::string key_;
  std::vector<std::string_view> order_;
};

}  // namespace

bool parse_json(std::string_view text, Json& out, JsonError& error, int max_depth) {
  Builder builder(max_depth);
  if (!parse_json_events(text, builder, error)) return false;
  out = std::move(builder.root());
  return true;
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

const Json* find(const Json& object, std::string_view key) {
  const auto* members = object.get_ptr<const Json::object_t*>();
  if (members == nullptr) return nullptr;
  for (const auto& m : *members) {
    if (m.first == key) return &m.second;
  }
  return nullptr;
}

std::string_view string_at(const Json& object, std::string_view key, std::string_view fallback) {
  const Json* v = find(object, key);
  const auto* s = v == nullptr ? nullptr : v->get_ptr<const Json::string_t*>();
  return s == nullptr ? fallback : std::string_view(*s);
}

int64_t int_at(const Json& object, std::string_view key, int64_t fallback) {
  const Json* v = find(object, key);
  if (v == nullptr || !v->is_number_integer()) return fallback;
  if (const auto* u = v->get_ptr<const Json::number_unsigned_t*>()) return *u <= static_cast<uint64_t>(INT64_MAX) ? static_cast<int64_t>(*u) : fallback;
  return *v->get_ptr<const Json::number_integer_t*>();
}

bool bool_at(const Json& object, std::string_view key, bool fallback) {
  const Json* v = find(object, key);
  const auto* b = v == nullptr ? nullptr : v->get_ptr<const Json::boolean_t*>();
  return b == nullptr ? fallback : *b;
}

}  // namespace qb
