// What each layer of a model does wrong, against another one whose numbers are the truth: both are gone through layer by layer, side by side.
//
// Goals: models larger than memory, one layer of each at a time; any two checkpoints of one architecture, whatever scheme or form each has. Non-goal: what it
// does to the logits (engine/metrics.h). Everything that a scheme does not quantize is float32, keys and values too.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "bridge/streamed.h"

namespace qb {

// Root of the sum of the squares of all differences over that of the squares of what is compared with; infinite where that is zero and the other is not.
struct RelativeError {
  double differences = 0, numbers = 0;
  void add(std::span<const float> found, std::span<const float> truth);
  double value() const;
};

struct LayerError {
  double own = 0;    // of the hidden states behind the layer, where it gets the truth's
  double total = 0;  // where it gets what the layers before it have made
  // Of the outputs of each linear that both models have under one name, where the layer gets the truth's hidden states: what the linears before it in the layer
  // do wrong is in it. Experts have none: routers may send them other tokens.
  std::map<std::string, double> linears;
};

struct LayerErrorsOptions {
  model::Options model;  // how both run; its observers are not used
  host::ThreadPool& pool;
  uint64_t memory = 256ull << 20;  // for hidden states; more goes into a file
  std::filesystem::path scratch = std::filesystem::temp_directory_path();
  std::function<void(const Progress&)> progress = {};  // tokens times layers
};

// One for each layer. Both sessions can be run (make_runnable). Errors: models that differ in layers, width or basis (bridge/rotate.h), ids outside the
// vocabulary, cancelled, io, what cannot be run.
Result<std::vector<LayerError>> layer_errors(const Session& found, const Session& truth, std::span<const std::vector<int32_t>> samples, Context& context,
                                             const LayerErrorsOptions& options);

}  // namespace qb
