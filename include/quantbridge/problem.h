// What is wrong with a checkpoint, in a form that programs can act on.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace qb {

enum class Severity : uint8_t { error, warning, note };
// In the order in which a checkpoint's class is chosen (the first one present).
enum class ProblemClass : uint8_t { damaged, inconsistent, repairable, unsupported, suspicious, environment };
enum class Repair : uint8_t { none, exact, lossy };

struct Problem {
  std::string code;
  Severity severity = Severity::error;
  ProblemClass cls = ProblemClass::damaged;
  Repair repair = Repair::none;
  std::string file, tensor, module, found, expected, action;  // empty where it does not apply; may hold any bytes, escape to print
};

}  // namespace qb
