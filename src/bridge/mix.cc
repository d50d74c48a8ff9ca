#include "bridge/mix.h"

#include <fmt/format.h>

#include <algorithm>

#include "quantbridge/version.h"

namespace qb {
namespace {

using Samples = std::vector<std::vector<int32_t>>;

bool without_data(const MixRequest& request) {
  return request.by == Sensitivity::weights;
}

std::string digest_of(const Session& s, const MixRequest& request, const Samples& samples) {
  return samples_digest(fmt::format("sensitivity 1 {} {}\n{}", version, without_data(request) ? "weights" : "divergence", state_of(s)), samples);
}

Result<Samples> samples_of(const Session& s, const MixRequest& request) {
  QB_ASSIGN(Samples samples, read_samples(s, request.samples, request.limits));
  uint64_t tokens = 0;
  size_t count = 0;
  while (count < samples.size() && tokens < request.tokens) tokens += samples[count++].size();
  samples.resize(count);
  return samples;
}

class Mixing {
 public:
  Mixing(const Session& s, const MixRequest& request, Context& context, const Samples& samples, SensitivityFile& file, host::ThreadPool& pool, Mixed& out)
      : s_(s), request_(request), context_(context), samples_(samples), file_(file), pool_(pool), out_(out) {}

  Result<void> run() {
    if (without_data(request_)) {
      QB_TRY(measure_weights(s_, out_.space, file_, context_, options("weights")));
    } else {
      QB_TRY(measure_layers(request_.by, s_, out_.space, samples_, file_, context_, options("sensitivity")));
    }
    items_ = mix_items(out_.space, file_, request_.by);
    hull_ = calib::frontier(items_);
    if (request_.divergence) {
      QB_TRY(within_divergence(*request_.divergence));
    } else {
      QB_TRY(within_bytes());
    }
    out_.config = out_.space.config(out_.mix);
    return report();
  }

 private:
  SensitivityOptions options(const std::string& stage) const {
    const std::filesystem::path beside = request_.measurements.parent_path();
    return {.pool = pool_,
            .scratch = beside.empty() ? std::filesystem::path(".") : beside,
            .progress = request_.progress ? request_.progress(stage) : std::function<void(const Progress&)>()};
  }
  double bits_of(uint64_t bytes) const { return static_cast<double>(bytes) * 8 / static_cast<double>(out_.space.weights); }
  Error too_little(const std::string& asked) const {
    return {Errc::invalid_argument, fmt::format("{}: the smallest mixture of these schemes has {:.3f} bits for a weight, {} bytes in all tensors", asked,
                                                bits_of(hull_.front().bytes), hull_.front().bytes + out_.space.other_bytes)};
  }
  Result<std::vector<double>> measure(std::span<const Mix> mixes, const std::string& stage) const {
    return mixture_divergences(s_, out_.space, mixes, samples_, file_, context_, options(stage));
  }

  Result<void> within_bytes() {
    uint64_t most = 0;
    std::string asked;
    if (request_.size) {
      asked = fmt::format("{} bytes", *request_.size);
      most = *request_.size - std::min(*request_.size, out_.space.other_bytes);
    } else {
      asked = fmt::format("{} bits", *request_.bits);
      most = static_cast<uint64_t>((*request_.bits + 0.0005) * static_cast<double>(out_.space.weights) / 8);
    }
    std::optional<calib::Choice> choice = calib::choose(items_, most);
    if (!choice) return too_little(asked);
    out_.mix = std::move(choice->options);
    out_.exact = choice->exact;
    return {};
  }

  // The smallest mixture of the curve that is measured to lose no more, by halves: along the curve losses fall, but for what does not add up.
  Result<void> within_divergence(double most) {
    size_t too_small = 0, enough = hull_.size() - 1;
    double ratio = 1;  // of what was measured last to what was predicted
    const auto loses = [&](size_t at) -> Result<double> {
      QB_ASSIGN(const std::vector<double> found, measure(std::span(&hull_[at].options, 1), "mixtures"));
      if (hull_[at].cost > 0 && found[0] > 0) ratio = found[0] / hull_[at].cost;
      return found[0];
    };
    QB_ASSIGN(const double largest, loses(enough));
    if (largest > most)
      return Error{Errc::invalid_argument,
                   fmt::format("a divergence of {}: the best mixture of these schemes has {:.6g}; name more of them, bf16 has none", most, largest)};
    QB_ASSIGN(const double smallest, loses(0));
    if (smallest <= most) enough = 0;
    for (bool guess = true; enough > too_small + 1; guess = !guess) {
      // Where the prediction says, and every other time in the middle, which bounds what it misses.
      size_t at = too_small + (enough - too_small) / 2;
      if (guess) {
        const auto it = std::find_if(hull_.begin(), hull_.end(), [&](const calib::Choice& c) { return c.cost * ratio <= most; });
        at = std::clamp(static_cast<size_t>(it - hull_.begin()), too_small + 1, enough - 1);
      }
      QB_ASSIGN(const double found, loses(at));
      (found <= most ? enough : too_small) = at;
    }
    out_.mix = hull_[enough].options;
    return {};
  }

  MixPoint point(const Mix& mix, std::string scheme = {}) const {
    MixPoint p{.scheme = std::move(scheme), .bits = bits_of(out_.space.bytes(mix)), .bytes = out_.space.bytes(mix) + out_.space.other_bytes};
    for (size_t g = 0; g < mix.size(); ++g) p.predicted += items_[g][mix[g]].cost * scale_;
    return p;
  }

  // The chosen one, each scheme by itself and points of the curve, measured together.
  Result<void> report() {
    std::vector<Mix> mixes{out_.mix};
    if (request_.by == Sensitivity::layers) {
      QB_ASSIGN(const std::vector<double> found, measure(mixes, "mixtures"));
      if (const double predicted = point(out_.mix).predicted; predicted > 0) scale_ = found[0] / predicted;
    }
    out_.chosen = point(out_.mix);
    std::vector<MixPoint*> measured{&out_.chosen};
    out_.uniform.reserve(out_.space.schemes.size());
    for (size_t scheme = 0; scheme < out_.space.schemes.size(); ++scheme) {
      const std::optional<Mix> uniform = out_.space.schemes[scheme].scheme ? out_.space.uniform(scheme) : std::nullopt;
      if (!uniform) continue;
      out_.uniform.push_back(point(*uniform, out_.space.schemes[scheme].name));
      if (request_.points == 0) continue;
      measured.push_back(&out_.uniform.back());
      mixes.push_back(*uniform);
    }
    for (const calib::Choice& c : hull_) out_.curve.push_back(point(c.options));
    // Evenly in bits, without the end, which nobody mixes for.
    const uint64_t begin = hull_.front().bytes, end = hull_.back().bytes;
    size_t at = 0;
    for (size_t p = 0; p < request_.points; ++p) {
      const uint64_t wanted = begin + (end - begin) * p / request_.points;
      while (at + 1 < hull_.size() && hull_[at].bytes < wanted) ++at;
      measured.push_back(&out_.curve[at]);
      mixes.push_back(hull_[at].options);
    }
    if (without_data(request_)) return {};
    QB_ASSIGN(const std::vector<double> found, measure(mixes, "mixtures"));
    for (size_t m = 0; m < measured.size(); ++m) measured[m]->measured = found[m];
    return {};
  }

  const Session& s_;
  const MixRequest& request_;
  Context& context_;
  const Samples& samples_;
  SensitivityFile& file_;
  host::ThreadPool& pool_;
  Mixed& out_;
  std::vector<calib::Item> items_;
  std::vector<calib::Choice> hull_;
  double scale_ = 1;
};

}  // namespace

Result<bool> mix_schemes(const Session& s, const JobOptions& job, const MixRequest& request, Context& context, Mixed& out, Diagnostics& diag) {
  QB_ASSIGN(const bool space, mix_space(s, job, request.schemes, request.numerics, context, out.space, diag));
  if (!space) return false;
  Samples samples;
  if (!without_data(request)) {
    QB_ASSIGN(samples, samples_of(s, request));
  }
  for (const std::vector<int32_t>& sample : samples) out.tokens += static_cast<int64_t>(sample.size());
  QB_ASSIGN(SensitivityFile file, SensitivityFile::open(request.measurements, digest_of(s, request, samples)));
  out.start = file.start();
  host::ThreadPool pool(context.limits.threads);
  QB_TRY(Mixing(s, request, context, samples, file, pool, out).run());
  return true;
}

}  // namespace qb
