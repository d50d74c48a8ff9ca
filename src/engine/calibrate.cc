#include "engine/calibrate.h"

#include <algorithm>

#include "engine/hidden_states.h"

namespace qb::engine {

Result<void> calibrate(model::LayerStream& model, std::span<const std::vector<int32_t>> samples, const CalibrateOptions& options) {
  std::vector<int64_t> tokens;
  uint64_t total = 0, done = 0;
  for (const std::vector<int32_t>& s : samples) {
    tokens.push_back(static_cast<int64_t>(s.size()));
    total += s.size();
  }
  const int64_t longest = tokens.empty() ? 0 : *std::max_element(tokens.begin(), tokens.end());
  if (longest == 0) return Error{Errc::invalid_argument, "there are no samples to calibrate on"};
  const auto layers = static_cast<uint64_t>(model.layers());
  std::vector<float> x(static_cast<size_t>(longest * model.hidden()));
  const auto rows_of = [&](size_t s) { return std::span(x).first(static_cast<size_t>(tokens[s] * model.hidden())); };
  QB_ASSIGN(HiddenStates states, HiddenStates::make(tokens, model.hidden(), options.memory, options.scratch));
  QB_TRY(model.load_embedding());
  for (size_t s = 0; s < samples.size(); ++s) {
    QB_TRY(model.embed(samples[s], rows_of(s).data()));
    QB_TRY(states.store(s, rows_of(s)));
  }
  for (int64_t layer = 0; layer < model.layers(); ++layer) {
    QB_TRY(model.load(layer));
    for (size_t s = 0; s < samples.size(); ++s) {
      if (options.cancelled != nullptr && options.cancelled->load(std::memory_order_relaxed)) return Error{Errc::cancelled, "interrupted"};
      QB_TRY(states.load(s, rows_of(s)));
      QB_TRY(model.run(rows_of(s).data(), tokens[s]));
      QB_TRY(states.store(s, rows_of(s)));
      if (options.sample_done) options.sample_done();
      done += samples[s].size();
      if (options.progress) options.progress({done, total * layers});
    }
  }
  return {};
}

}  // namespace qb::engine
