// Who answers surveys: whoever can read the bulk data. Passes, dialects and models ask, and never read it themselves.
#pragma once

#include "base/result.h"
#include "prog/program.h"

namespace qb {

// Answers of the runner to named questions about bulk data.
class Surveyor {
 public:
  virtual ~Surveyor() = default;
  virtual Result<prog::SurveyResult> ask(const prog::Survey&) = 0;
};

}  // namespace qb
