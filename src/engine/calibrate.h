// Samples through a model, layer by layer, while somebody looks on.
//
// Goals: a model larger than memory: one layer's weights are loaded at a time, and what is between layers may lie in a file. Non-goals: what is measured
// (layer::Observers), and the head behind the last layer.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "exec/context.h"
#include "model/model.h"

namespace qb::engine {

struct CalibrateOptions {
  uint64_t memory = 256ull << 20;                 // bytes for what is between layers; more goes into a file
  std::filesystem::path scratch = ".";            // in this directory
  std::function<void(const Progress&)> progress;  // tokens times layers; may be empty
  const std::atomic<bool>* cancelled = nullptr;   // may be null
  std::function<void()> sample_done;              // after each sample in each layer; may be empty
};

// Errors: an id outside the vocabulary, a sample longer than the model's positions, cancelled, io.
Result<void> calibrate(model::LayerStream& model, std::span<const std::vector<int32_t>> samples, const CalibrateOptions& options);

}  // namespace qb::engine
