// Samples through a model, layer by layer, while somebody works on each layer.
//
// Goals: a model larger than memory: one layer's weights are loaded at a time, and what is between layers may lie in a file. Non-goals: what is measured
// (layer::Observers) or made of it, and the head behind the last layer.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "exec/context.h"
#include "model/model.h"

namespace qb::calib {

// What is done at each layer.
class LayerWork {
 public:
  // look: through the layer once, its outputs are thrown away, and it is begun again; keep: likewise, and what the half of the layer puts out that has the
  // linear `within` is kept; compare: likewise, and it is compared with what was kept; go: its outputs are the inputs of the next layer; done: no sample has to
  // go any further.
  enum class Pass : uint8_t { look, keep, compare, go, done };

  virtual ~LayerWork() = default;
  // Before the layer is loaded, or loaded again: it may have other weights than it had before.
  virtual Result<Pass> begin(int64_t layer) = 0;
  virtual void sample_done() {}
  virtual std::string within() const { return {}; }
  // The sum of the squares of all differences, before the end of a pass that compares.
  virtual void compared(double squares) { static_cast<void>(squares); }
  // Whether passes that compare will follow.
  virtual bool compares() const { return false; }
  // Whether the end of the pass that has begun takes long.
  virtual bool works() const { return false; }
  // After the last sample of a pass. What takes long calls `tell` with how much of it is done, from 0 to 1.
  virtual Result<void> end(int64_t layer, const std::function<void(double)>& tell) = 0;
};

struct CalibrateOptions {
  uint64_t memory = 256ull << 20;                 // bytes for what is between layers; more goes into a file
  std::filesystem::path scratch = ".";            // in this directory
  std::function<void(const Progress&)> progress;  // in tokens times layers, the work on a layer counted as tokens too; may be empty
  const std::atomic<bool>* cancelled = nullptr;   // may be null
};

// Errors: an id outside the vocabulary, a sample longer than the model's positions, cancelled, io, those of the work.
Result<void> calibrate(model::LayerStream& model, std::span<const std::vector<int32_t>> samples, LayerWork& work, const CalibrateOptions& options);

}  // namespace qb::calib
