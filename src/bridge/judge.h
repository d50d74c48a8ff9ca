// What the numbers of a part, counted in one pass, say about it: problems, each with its reason.
//
// Only what no producer writes is damage. The rest is suspicious: the thresholds are derived below, where they are used, and a checkpoint that was made from
// weights of the usual shapes (one peak at zero, or even) passes them all.
#pragma once

#include "base/diagnostics.h"
#include "exec/scan.h"
#include "io/package.h"

namespace qb {

// Where messages are about.
struct Subject {
  const ir::Module* module = nullptr;
  const ir::Stored* part = nullptr;
};
Place place_of(const Package&, const Subject&);

// What is to be counted of a part in the pass over its bytes. `head`: the path of the model's head, whose outputs include words that nobody uses.
ScanQuestion question_of(const Subject&, std::string_view head);
// Whether the part's view has every element of the tensor: then all numbers of the tensor are the part's.
bool covers(const ir::Stored&);
// The numbers behind the last column of each row, as a part of their own, floats as bytes; nothing where there are none.
std::optional<ir::Stored> padding_of(const ir::Stored&);

void judge_numbers(const Package&, const Subject&, const prog::SurveyResult&, Diagnostics&);
void judge_codes(const Package&, const Subject&, const ScanResult&, Diagnostics&);
// `codes`: of the weight; `unit`: all its scales are 1.
void judge_range(const Package&, const Subject&, const ScanResult& codes, bool unit, Diagnostics&);

}  // namespace qb
