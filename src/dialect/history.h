// quantbridge.history: what was done to a checkpoint here, in the safetensors metadata of each file: one entry for each conversion, in order.
//
// Goals: whoever gets a checkpoint can see what it was made from, what was repaired and what was lost; small, and the same bytes whenever the same is done (no
// times, no paths). Non-goal: taking anything back (that is quantbridge.origin). Read from files that anybody may have written: it is shown, never acted upon.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "io/package.h"

namespace qb {

struct HistoryStep {
  std::string by;                                   // the program and its version
  std::string did;                                  // convert, quantize
  std::string from, producer, to;                   // dialects; producer: what the documents of the source said
  std::vector<std::string> changes, repairs, lost;  // sentences
};

inline constexpr std::string_view history_key = "quantbridge.history";

// Empty where no file says anything that can be read. At most 32 steps of at most 16 sentences of at most 400 bytes each.
std::vector<HistoryStep> read_history(const Package&);
// The metadata value. What exceeds the bounds above is cut and says so; of too many steps the first and the last ones stay.
std::string history_metadata(std::vector<HistoryStep> steps);
// "convert by quantbridge 0.1.0, from modelopt (modelopt 0.47.0) to dense", escaped.
std::string history_text(const HistoryStep&);
// What it changed, repaired and lost, escaped.
std::vector<std::string> history_sentences(const HistoryStep&);
// One step with its keys, as inspect --json shows it.
Json history_json(const HistoryStep&);

}  // namespace qb
