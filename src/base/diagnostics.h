// Everything that is wrong with an input, each problem with its place. Collecting never throws, prints or stops at the first.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quantbridge/problem.h"

namespace qb {

std::string_view to_string(Severity);
std::string_view to_string(ProblemClass);
std::string_view to_string(Repair);

// What a problem code means. The table is the source of docs/problems.md.
struct ProblemKind {
  std::string_view code;  // stable kebab-case word
  ProblemClass cls;
  Repair repair;             // what `convert --repair` can do about it, by default
  std::string_view meaning;  // one or two sentences
  std::string_view engines;  // what engines do with it today
  std::string_view action;   // what the user should do
};
std::span<const ProblemKind> problem_kinds();
const ProblemKind* find_problem_kind(std::string_view code);

// Where a problem is. Any part may be empty.
struct Place {
  std::string_view file, tensor, module;
};

class Diagnostics {
 public:
  // Adds a problem of a known kind (a code missing from the table is our own bug and aborts). Class, repair and action come from the table; the returned
  // reference lets the caller override them. Suspicious problems are warnings, everything else is an error.
  Problem& report(std::string_view code, Place place, std::string found, std::string expected);
  void add(Problem problem) { all_.push_back(std::move(problem)); }

  std::span<const Problem> all() const { return all_; }
  std::span<Problem> all() { return all_; }
  bool ok() const;  // no errors; warnings and notes are allowed
  bool has(std::string_view code) const;
  // The most severe class present, in the order of ProblemClass; false when there is none.
  bool worst(ProblemClass& out) const;

 private:
  std::vector<Problem> all_;
};

// Bytes of a name, made safe to print: control characters and invalid UTF-8 become \xNN.
std::string escape(std::string_view bytes);

}  // namespace qb
