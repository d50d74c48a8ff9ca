#include "io/header_events.h"

#include <fmt/format.h>

#include <algorithm>

namespace qb {
namespace {

constexpr int max_skipped_depth = 64;

}  // namespace

bool HeaderEvents::fault(std::string_view code, std::string found, std::string expected) {
  const bool in_tensor = state_ == State::before_tensor || state_ == State::tensor || state_ == State::dtype || state_ == State::before_shape ||
                         state_ == State::shape || state_ == State::before_offsets || state_ == State::offsets;
  if (fault_.code.empty()) {
    fault_ = {std::string(code), in_tensor ? tensors.back().info.name : "", fmt::format("{}, before byte {} of the header", found, position()),
              std::move(expected)};
  }
  return false;
}

std::string_view HeaderEvents::wanted() const {
  switch (state_) {
    case State::start:
      return "an object of tensors";
    case State::before_tensor:
      return "an object with dtype, shape and data_offsets";
    case State::before_metadata:
      return "__metadata__ as an object of strings";
    case State::metadata_value:
      return "strings alone in __metadata__";
    case State::dtype:
      return "dtype as a string";
    case State::before_shape:
    case State::shape:
      return "shape as an array of unsigned integers";
    case State::before_offsets:
    case State::offsets:
      return "data_offsets as an array of two unsigned integers";
    default:
      return "a safetensors header";
  }
}

bool HeaderEvents::value(std::string_view found) {
  if (state_ != State::skip) return fault("header-invalid-json", std::string(found), std::string(wanted()));
  if (skipped_depth_ == 0) state_ = State::tensor;
  return true;
}

bool HeaderEvents::null() {
  if (state_ == State::before_metadata) {  // the reference takes it for none
    state_ = State::header;
    return true;
  }
  return value("null");
}

bool HeaderEvents::number_unsigned(number_unsigned_t v) {
  RawTensor* t = tensors.empty() ? nullptr : &tensors.back();
  if (state_ == State::shape) {
    constexpr uint64_t most = INT64_MAX;
    if (v > most) t->shape_too_large = true;
    t->info.shape.push_back(static_cast<int64_t>(std::min(v, most)));
    return true;
  }
  if (state_ == State::offsets) {
    if (offsets_ == 2) return fault("header-invalid-json", "a third number in data_offsets", std::string(wanted()));
    (offsets_++ == 0 ? t->info.offset : t->info.bytes) = v;
    return true;
  }
  return value("a number");
}

bool HeaderEvents::string(string_t& v) {
  if (state_ == State::dtype) {
    RawTensor& t = tensors.back();
    if (const auto e = elem_from_safetensors(v)) {
      t.info.dtype = *e;
    } else {
      t.unknown_dtype = v.empty() ? "(empty)" : std::move(v);
    }
    state_ = State::tensor;
    return true;
  }
  if (state_ == State::metadata_value) {
    metadata.back().second = std::move(v);
    state_ = State::metadata;
    return true;
  }
  return value("a string");
}

bool HeaderEvents::enter_skipped() {
  if (++skipped_depth_ > max_skipped_depth)
    return fault("header-invalid-json", fmt::format("nesting of more than {} levels", max_skipped_depth), "a flat header");
  return true;
}

bool HeaderEvents::start_object(size_t) {
  switch (state_) {
    case State::start:
      state_ = State::header;
      return true;
    case State::before_tensor:
      state_ = State::tensor;
      fields_ = 0;
      return true;
    case State::before_metadata:
      state_ = State::metadata;
      return true;
    case State::skip:
      return enter_skipped();
    default:
      return value("an object");
  }
}

bool HeaderEvents::field(Field f, State next, std::string_view name) {
  if ((fields_ & f) != 0) return fault("header-duplicate-key", fmt::format("{} twice", name), "one");
  fields_ |= f;
  state_ = next;
  return true;
}

bool HeaderEvents::key(string_t& v) {
  switch (state_) {
    case State::header:
      if (v == "__metadata__") {
        if (metadata_seen_) return fault("header-duplicate-key", "__metadata__ twice", "one");
        metadata_seen_ = true;
        state_ = State::before_metadata;
        return true;
      }
      tensors.emplace_back().info.name = std::move(v);
      tensors.back().info.file = file_;
      state_ = State::before_tensor;
      return true;
    case State::metadata:
      metadata.emplace_back(std::move(v), std::string());
      state_ = State::metadata_value;
      return true;
    case State::tensor:
      if (v == "dtype") return field(has_dtype, State::dtype, v);
      if (v == "shape") return field(has_shape, State::before_shape, v);
      if (v == "data_offsets") return field(has_offsets, State::before_offsets, v);
      state_ = State::skip;  // the reference ignores other keys
      return true;
    default:
      return true;  // inside of what is skipped
  }
}

bool HeaderEvents::end_object() {
  switch (state_) {
    case State::header:
      state_ = State::done;
      return true;
    case State::metadata:
      state_ = State::header;
      return true;
    case State::tensor:
      for (const auto& [bit, name] : {std::pair{has_dtype, "dtype"}, std::pair{has_shape, "shape"}, std::pair{has_offsets, "data_offsets"}}) {
        if ((fields_ & bit) == 0) return fault("header-invalid-json", fmt::format("no {}", name), "an object with dtype, shape and data_offsets");
      }
      state_ = State::header;
      return true;
    default:
      if (--skipped_depth_ == 0) state_ = State::tensor;
      return true;
  }
}

bool HeaderEvents::start_array(size_t) {
  switch (state_) {
    case State::before_shape:
      state_ = State::shape;
      return true;
    case State::before_offsets:
      state_ = State::offsets;
      offsets_ = 0;
      return true;
    case State::skip:
      return enter_skipped();
    default:
      return value("an array");
  }
}

bool HeaderEvents::end_array() {
  switch (state_) {
    case State::offsets:
      if (offsets_ != 2) return fault("header-invalid-json", fmt::format("{} numbers in data_offsets", offsets_), std::string(wanted()));
      state_ = State::tensor;
      return true;
    case State::shape:
      state_ = State::tensor;
      return true;
    default:
      if (--skipped_depth_ == 0) state_ = State::tensor;
      return true;
  }
}

}  // namespace qb
