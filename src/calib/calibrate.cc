#include "calib/calibrate.h"

#include <algorithm>
#include <optional>

#include "calib/hidden_states.h"

namespace qb::calib {
namespace {

double squares_of(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return sum;
}

}  // namespace

using Pass = LayerWork::Pass;
using Half = model::LayerStream::Half;

Result<void> calibrate(model::LayerStream& model, std::span<const std::vector<int32_t>> samples, LayerWork& work, const CalibrateOptions& options) {
  std::vector<int64_t> tokens;
  uint64_t total = 0;
  for (const std::vector<int32_t>& s : samples) {
    tokens.push_back(static_cast<int64_t>(s.size()));
    total += s.size();
  }
  const int64_t longest = tokens.empty() ? 0 : *std::max_element(tokens.begin(), tokens.end());
  if (longest == 0) return Error{Errc::invalid_argument, "there are no samples to calibrate on"};
  const auto layers = static_cast<uint64_t>(model.layers());
  std::vector<float> x(static_cast<size_t>(longest * model.hidden()));
  const auto rows_of = [&](size_t s) { return std::span(x).first(static_cast<size_t>(tokens[s] * model.hidden())); };
  std::vector<float> added, before;                            // of a half
  const auto part_of = [&](std::vector<float>& v, size_t s) {  // made when they are wanted
    v.resize(x.size());
    return std::span(v).first(rows_of(s).size());
  };
  QB_ASSIGN(HiddenStates states, HiddenStates::make(tokens, model.hidden(), options.memory, options.scratch));
  std::optional<HiddenStates> kept;
  QB_TRY(model.load_embedding());
  for (size_t s = 0; s < samples.size(); ++s) {
    QB_TRY(model.embed(samples[s], rows_of(s).data()));
    QB_TRY(states.store(s, rows_of(s)));
  }
  bool looked = false;  // at this layer already
  uint64_t reported = 0;
  for (int64_t layer = 0; layer < model.layers();) {
    QB_ASSIGN(const Pass pass, work.begin(layer));
    if (pass == Pass::done) break;
    QB_TRY(model.load(layer));
    const bool halves = pass == Pass::keep || pass == Pass::compare;
    if (halves && !kept) {
      QB_ASSIGN(kept, HiddenStates::make(tokens, model.hidden(), options.memory, options.scratch));
    }
    // Of a layer: two thirds to look at it and to work on it, where that comes first, and the rest for its outputs. Comparing takes nearly all of these two.
    const double look = work.compares() ? 1.0 / 12 : 2.0 / 3;
    const double begun = halves ? look : looked && pass == Pass::go ? 2.0 / 3 : 0;
    const double span = halves ? 2.0 / 3 - look : pass == Pass::look ? look : 1 - begun, for_work = work.works() ? 0.5 : 0;
    const auto tell = [&](double part) {
      const double there = static_cast<double>(layer) + begun + span * part;
      reported = std::max(reported, static_cast<uint64_t>(there * static_cast<double>(total)));  // a layer may be looked at more than once
      if (options.progress) options.progress({reported, total * layers});
    };
    Half half = Half::attention;
    if (halves) {
      QB_ASSIGN(half, model.half_of(work.within()));
    }
    uint64_t done = 0;
    double differences = 0;
    for (size_t s = 0; s < samples.size(); ++s) {
      if (options.cancelled != nullptr && options.cancelled->load(std::memory_order_relaxed)) return Error{Errc::cancelled, "interrupted"};
      QB_TRY(states.load(s, rows_of(s)));
      if (halves) {
        if (half == Half::feed_forward) QB_TRY(model.run_half(Half::attention, rows_of(s).data(), tokens[s], nullptr));
        QB_TRY(model.run_half(half, rows_of(s).data(), tokens[s], part_of(added, s).data()));
        if (pass == Pass::keep) {
          QB_TRY(kept->store(s, part_of(added, s)));
        } else {
          QB_TRY(kept->load(s, part_of(before, s)));
          differences += squares_of(part_of(added, s), part_of(before, s));
        }
        continue;
      }
      QB_TRY(model.run(rows_of(s).data(), tokens[s]));
      if (pass == Pass::go) QB_TRY(states.store(s, rows_of(s)));
      work.sample_done();
      done += samples[s].size();
      tell((1 - for_work) * static_cast<double>(done) / static_cast<double>(total));
    }
    if (pass == Pass::compare) work.compared(differences);
    QB_TRY(work.end(layer, [&](double part) { tell(halves ? part : 1 - for_work + for_work * part); }));
    looked = pass != Pass::go;
    if (!looked) ++layer;
  }
  return {};
}

}  // namespace qb::calib
