// Weights that were saved without compressing them: what was measured for them lies beside the numbers from before.
//
// Source of truth: compressed-tensors 0.19, whose modules hold these parameters while they are calibrated. Conversions leave them out.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "dialect/compressed_tensors_config.h"
#include "dialect/reading.h"

namespace qb {

class CtCalibrations {
 public:
  explicit CtCalibrations(Reading& reading) : r_(reading) {}

  // Gives the module what there is. Problems: calibration-incomplete for what the group's scheme has and is absent, or no floats.
  void read(const CtGroup&, ir::Module&);
  // After the last one: what no scheme asks for (zero points of symmetric numbers), all modules of a group have or none, and all of them in one
  // dtype. The same problem.
  void check();

 private:
  void absent(const ir::Module&, std::string_view word, std::string expected);

  struct Members {
    std::set<std::string> words;  // that no scheme asks for, and any module has
    std::map<std::string, std::map<Elem, int>> dtypes;
    std::vector<const ir::Module*> modules;
  };
  Reading& r_;
  std::map<const CtGroup*, Members> groups_;
};

}  // namespace qb
