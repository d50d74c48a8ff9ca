// How much each group of modules suffers from each scheme, and how much whole mixtures do.
//
// With data: the divergence KL(source || changed) of the distribution of the next token, in nats, as a mean over all tokens of the samples. One group at a time
// is changed, and one scheme of it, the one of middle size, is followed through all layers behind it to the output. What the others do there is derived: a
// small error costs as its square, so their divergence is that one's times the ratio of the mean squares, over all tokens, of the relative errors that each
// makes in what comes out of the group's layer. The source is gone through some layers at a time with all changes that are made in them, so that one layer's
// weights are in memory, and each layer is loaded as often as there are such bands. Everything that a scheme does not quantize is float32.
// Cheaper: the errors in what comes out of the layers alone, of which the divergence is some twice the square in most groups; not in those that make the few
// hidden states that are far larger than all others. Without data: the mean of the squared relative errors of the weights, in blocks of rows.
// Rejected: following every scheme to the output (several times the time for nearly the same order of groups); gradients (the runtime has none).
//
// Everything that is measured goes to the file at once, and what is there is not measured again.
#pragma once

#include <functional>

#include "bridge/mix_space.h"
#include "bridge/sensitivity_file.h"
#include "calib/choice.h"
#include "host/threads.h"

namespace qb {

// By what: the divergence at the output, one scheme of each group followed there; the errors of what comes out of the group's layer; those of the weights.
enum class Sensitivity : uint8_t { divergence, layers, weights };

struct SensitivityOptions {
  host::ThreadPool& pool;
  std::filesystem::path scratch;                       // where hidden states lie that do not fit in half of the memory budget
  std::function<void(const Progress&)> progress = {};  // tokens times layers; without data numbers
};

// Errors: what cannot be run, ids outside the vocabulary, cancelled, io.
// `by` is not weights.
Result<void> measure_layers(Sensitivity by, const Session&, const MixSpace&, std::span<const std::vector<int32_t>> samples, SensitivityFile&, Context&,
                            const SensitivityOptions&);
// Of each mixture, all of them in one pass through the model.
Result<std::vector<double>> mixture_divergences(const Session&, const MixSpace&, std::span<const Mix> mixes, std::span<const std::vector<int32_t>> samples,
                                                SensitivityFile&, Context&, const SensitivityOptions&);
Result<void> measure_weights(const Session&, const MixSpace&, SensitivityFile&, Context&, const SensitivityOptions&);

// What each group's options cost: what they add to the divergence; the square of the layer's error, which that goes with; their part of the mean squared error
// of the weights. Precondition: all of them were measured.
std::vector<calib::Item> mix_items(const MixSpace&, const SensitivityFile&, Sensitivity by);

}  // namespace qb
