// JSON documents: bounded parsing, no exceptions, duplicate keys are errors, key order kept.
//
// Include this in .cc files only; headers use json_fwd.h.
#pragma once

// Conversions of std::filesystem::path: not needed, and not there on WASI.
#define JSON_HAS_FILESYSTEM 0
#define JSON_HAS_EXPERIMENTAL_FILESYSTEM 0
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"

namespace qb {

struct JsonError {
  std::string code;  // json-invalid, json-too-deep, json-duplicate-key
  std::string what;  // with the byte offset
};

// Parses `text` whole. Nesting deeper than `max_depth` and duplicate keys are errors. Never throws, never recurses over the input.
// Returns true and fills `out`, or returns false and fills `error`; `out` is then untouched.
bool parse_json(std::string_view text, Json& out, JsonError& error, int max_depth = 64);

// Indented with `indent` spaces (-1: one line), UTF-8 kept as it is, invalid UTF-8 replaced; ends without a newline.
std::string dump_json(const Json& value, int indent = 2);

// Appends a key that the object does not have yet: constant time, where operator[] searches all keys.
void append(Json& object, std::string key, Json value);

// Typed look-ups that never throw: null (or the fallback) where the key is absent or has another type.
const Json* find(const Json& object, std::string_view key);
std::string_view string_at(const Json& object, std::string_view key, std::string_view fallback = {});
int64_t int_at(const Json& object, std::string_view key, int64_t fallback);
bool bool_at(const Json& object, std::string_view key, bool fallback);

}  // namespace qb
