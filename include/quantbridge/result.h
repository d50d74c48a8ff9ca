// Result<T>: a value or an error from the outside world (files, memory, interruption).
//
// Goals: no exceptions in the core, errors that read as sentences, cheap moves.
// Non-goals: describing bad *input*; that goes to Diagnostics (diagnostics.h), all of it at once, with places.
// Rejected: std::expected (C++23, not in g++ 12), tl::expected (a dependency for forty lines).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace qb {

enum class Errc : uint8_t {
  io,                // a read, write or sync failed
  not_found,         // a file that must exist does not
  exists,            // an output exists and must not
  out_of_space,      // the file system cannot hold the output
  out_of_memory,     // the memory budget cannot hold one block
  cancelled,         // interrupted by the user
  invalid_argument,  // the caller asked for something that cannot be done
  bad_input,         // the input's problems are in the Diagnostics that the callee was given
};

struct Error {
  Errc code;
  std::string what;  // one sentence: file, what was found, what was expected, what to do
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  // Precondition: ok(). A violation is our own bug and aborts.
  T& operator*() { return *value(); }
  const T& operator*() const { return *const_cast<Result*>(this)->value(); }
  T* operator->() { return value(); }
  const T* operator->() const { return const_cast<Result*>(this)->value(); }
  // Precondition: !ok().
  const Error& error() const {
    const Error* e = std::get_if<1>(&state_);
    if (e == nullptr) std::abort();
    return *e;
  }

 private:
  T* value() {
    T* v = std::get_if<0>(&state_);
    if (v == nullptr) std::abort();
    return v;
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    if (!error_) std::abort();
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace qb
