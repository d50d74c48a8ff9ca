// What a quantization needs from data: static scales measured, and weights made by algorithms. The model is run on samples, layer by layer.
//
// Inputs stay float32 and so do keys and values; the kernels are the machine's fast ones with float32 inputs, whose sums are in another order than the
// reference's and of the same precision. Source of truth: both producers measure the unquantized model, one sample at a time; llm-compressor lets every expert
// see every token, ModelOpt those that chose it. Static scales are measured last, with the weights that algorithms have made.
#pragma once

#include <functional>
#include <string>

#include "bridge/job.h"
#include "bridge/layer_store.h"
#include "bridge/samples.h"
#include "bridge/team.h"

namespace qb {

struct Calibration {
  std::string file;  // as in read_samples
  SampleLimits limits;
  std::string observer = {};                      // how ranges are taken, for calib::parse_observer; empty: as the producer does
  std::filesystem::path out;                      // the output: what is made, and what does not fit in half of the memory budget, lies beside it
  std::function<void(const Progress&)> progress;  // in tokens times layers; may be empty
  std::unique_ptr<LayerStore> store = {};         // of what algorithms have made; null: none was asked for
};

// Fills job.quantize->ranges and overlay; the session's package reads what was made from then on. The job is planned before anything is measured: false, with
// the reasons in `diag`, where that fails or an algorithm or an observer is not for what it is asked for (algorithm-unsuited, observer-unsuited). An Error: an
// unknown algorithm or observer, samples that cannot be read or run, a family that does not run, cancelled, io. Precondition: the job quantizes.
// Together: the first process measures, and says why it cannot; all get the ranges. Algorithms are for one process (invalid_argument).
Result<bool> calibrate(Session&, JobOptions& job, Calibration&, Context&, Diagnostics& diag, const Together& together = {});

}  // namespace qb
