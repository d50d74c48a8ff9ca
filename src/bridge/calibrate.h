// What a quantization needs measured, measured: the model is run on samples, layer by layer, with the weights as they are in the source.
//
// Inputs stay float32 and so do keys and values; the kernels are the machine's fast ones with float32 inputs, whose sums are in another order than the
// reference's and of the same precision. Source of truth: both producers measure the unquantized model, one sample at a time; llm-compressor lets every expert
// see every token, ModelOpt those that chose it.
#pragma once

#include <functional>
#include <string>

#include "bridge/job.h"
#include "bridge/samples.h"
#include "bridge/team.h"

namespace qb {

struct Calibration {
  std::string file;  // as in read_samples
  SampleLimits limits;
  std::filesystem::path scratch = ".";            // a directory for what does not fit in half of the memory budget
  std::function<void(const Progress&)> progress;  // in tokens times layers; may be empty
};

// Fills job.quantize->ranges. The job is planned before anything is measured: false, with the reasons in `diag`, where that fails. An Error: samples that
// cannot be read or run, a family that does not run, cancelled, io. Precondition: the job quantizes.
// Together: the first process measures, and says why it cannot; all get the ranges.
Result<bool> calibrate(const Session&, JobOptions& job, const Calibration&, Context&, Diagnostics& diag, const Together& together = {});

}  // namespace qb
