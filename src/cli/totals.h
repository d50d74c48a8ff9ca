// What a checkpoint adds up to, by scheme.
#pragma once

#include <map>
#include <string>

#include "bridge/session.h"

namespace qb::cli {

struct SchemeCount {
  int64_t modules = 0, parameters = 0;
  uint64_t bytes = 0;
  double bits_per_weight() const { return parameters > 0 ? static_cast<double>(bytes) * 8 / static_cast<double>(parameters) : 0.0; }
};

struct Totals {
  int64_t parameters = 0;
  uint64_t bytes = 0;
  std::map<std::string, SchemeCount> schemes;
};
Totals totals_of(const Session&);

// The scheme of a module with a weight, or the format of its plain numbers; empty for modules without one.
std::string scheme_name(const ir::Module&);

}  // namespace qb::cli
