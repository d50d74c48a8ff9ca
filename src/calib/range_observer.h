// What a static scale is made of: a range of the numbers that flow through one place, taken one way or another. One file each, found through the manifest.
//
// Goals: numbers go by once and are not kept, beyond those of one sample. Non-goals: which places are watched (calib/ranges.h), and the scale itself
// (recipe/static_scale.h).
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "layer/observer.h"
#include "recipe/static_scale.h"

namespace qb::calib {

class RangeObserver : public layer::Observer {
 public:
  // Everything that was seen since the last call is of one sample.
  virtual void sample_done() {}
  // Empty where nothing was seen; from -infinity to infinity where something was not finite. Slow ones do their work here: once for each place.
  virtual recipe::Range range() const = 0;
};

struct ObserverKind {
  std::string_view name;
  std::string_view source;                   // where the formula comes from
  std::optional<recipe::Numerics> numerics;  // for jobs with these; absent: any
  struct Argument {
    std::string_view what = {};  // empty: there is none
    double usual = 0, least = 0, most = 0;
  } argument;
  std::string_view (*refuses)(const ir::QuantType&) noexcept;  // what it is for instead of this type of activations; empty: this one
  std::unique_ptr<RangeObserver> (*make)(const ir::QuantType&, double argument);
};

// Registers one, at file scope: QB_OBSERVER(max) = {...};
#define QB_OBSERVER(stem)                    \
  extern const ObserverKind observer_##stem; \
  constinit const ObserverKind observer_##stem

std::span<const ObserverKind* const> observers();  // the generated manifest

struct ChosenObserver {
  const ObserverKind* kind = nullptr;
  double argument = 0;
};
// NAME or NAME:ARGUMENT. Errors: invalid_argument with near names, or what an argument may be.
Result<ChosenObserver> parse_observer(std::string_view text, recipe::Numerics numerics);

// The range of these numbers; from -infinity to infinity where one is not finite.
recipe::Range range_of(const float* x, int64_t count);

}  // namespace qb::calib
