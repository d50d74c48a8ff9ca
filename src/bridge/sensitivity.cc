#include "bridge/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bridge/layer_errors.h"
#include "bridge/streamed.h"
#include "calib/hidden_states.h"
#include "engine/divergence.h"
#include "exec/buffer.h"
#include "exec/execute.h"
#include "exec/xxh3.h"
#include "host/cpu.h"
#include "layer/numbers.h"

namespace qb {
namespace {

using Samples = std::span<const std::vector<int32_t>>;

// In how many bands of layers at most the source is gone through: what a killed run loses, and how many hidden states there are at a time.
constexpr int64_t most_bands = 8;
// Tokens, in whole samples, on which errors of layers are measured: each is the mean over so many times the width.
constexpr uint64_t error_tokens = 256;
constexpr uint64_t logits_at_once = 16 << 20;  // bytes

bool quantizes(const MixSpace& space, const MixOption& o) {
  return space.schemes[o.scheme].scheme.has_value();
}

// What the file calls a scheme: with the recipe, since numerics differ.
std::string key_of(const MixSpace& space, const MixGroup& g, const MixOption& o) {
  if (!quantizes(space, o)) return "plain";
  const ir::Module& m = space.made[o.scheme].at(g.modules.front());
  return fmt::format("{} {}", to_string(*m.scheme), m.make->recipe);
}

std::string name_of(const MixSpace& space, const Mix& mix) {
  Xxh3 hash(Isa::generic);
  for (size_t g = 0; g < mix.size(); ++g) {
    const std::string text = fmt::format("{}={}\n", space.groups[g].match, key_of(space, space.groups[g], space.groups[g].options[mix[g]]));
    hash.add(std::as_bytes(std::span(text)));
  }
  return xxh3_hex(hash.digest());
}

// The option that is followed to the output: one that was, else the middle one by size of those that quantize.
size_t followed(const MixSpace& space, const SensitivityFile& file, const MixGroup& g) {
  std::vector<size_t> order;
  for (size_t o = 0; o < g.options.size(); ++o) {
    if (!quantizes(space, g.options[o])) continue;
    const SensitivityFile::Seen seen = file.seen(g.match, key_of(space, g, g.options[o]));
    if (seen.divergence && seen.error) return o;
    order.push_back(o);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return g.options[a].bytes < g.options[b].bytes; });
  return order[(order.size() - 1) / 2];
}

// Options of a group that are not measured yet; `follow` is the one whose divergence is missing.
struct Missing {
  size_t group = 0;
  std::vector<size_t> options;
  std::optional<size_t> follow;
};

Missing missing_of(Sensitivity by, const MixSpace& space, const SensitivityFile& file, size_t group) {
  const MixGroup& g = space.groups[group];
  Missing out{.group = group, .options = {}, .follow = {}};
  const size_t to_output = followed(space, file, g);
  for (size_t o = 0; o < g.options.size(); ++o) {
    if (!quantizes(space, g.options[o])) continue;
    const SensitivityFile::Seen seen = file.seen(g.match, key_of(space, g, g.options[o]));
    if (by == Sensitivity::divergence && o == to_output && !seen.divergence) out.follow = o;
    if (!seen.error || out.follow == o) out.options.push_back(o);
  }
  return out;
}

// A model with some of its weights changed, and hidden states of all samples in several places.
class Sweep {
 public:
  Sweep(const Session& s, const MixSpace& space, Samples samples, Context& context, const SensitivityOptions& options)
      : running(space.plain), s_(s), samples_(samples), context_(context), o_(options) {
    for (const std::vector<int32_t>& sample : samples) {
      tokens_.push_back(static_cast<int64_t>(sample.size()));
      all_tokens_ += sample.size();
      longest_ = std::max(longest_, tokens_.back());
    }
    for (uint64_t tokens = 0; error_samples_ < samples.size() && tokens < error_tokens; ++error_samples_) tokens += samples[error_samples_].size();
  }

  ir::Checkpoint running;  // what layers are loaded from

  Result<void> open(size_t places) {
    if (longest_ == 0) return Error{Errc::invalid_argument, "there are no samples to measure on"};
    model::Options options;
    options.linear.cpu = host::this_cpu();
    options.exact_inputs = true;
    QB_ASSIGN(streamed_, Streamed::open(s_, running, o_.pool, context_, options));
    std::vector<int64_t> all;
    for (size_t p = 0; p < places; ++p) all.insert(all.end(), tokens_.begin(), tokens_.end());
    QB_ASSIGN(states_, calib::HiddenStates::make(all, model().hidden(), context_.limits.memory_budget / 2, o_.scratch));
    x_.resize(static_cast<size_t>(longest_ * model().hidden()));
    other_.resize(x_.size());
    return {};
  }

  model::LayerStream& model() { return streamed_->model(); }
  uint64_t tokens() const { return all_tokens_; }
  // How often all tokens, and those on which errors are measured, go through a layer; the head counts as so many.
  void expect(uint64_t passes, uint64_t error_passes) {
    uint64_t tokens = 0;
    for (size_t i = 0; i < error_samples_; ++i) tokens += samples_[i].size();
    total_ = passes * all_tokens_ + error_passes * tokens;
  }

  Result<void> embed(size_t to) {
    QB_TRY(model().load_embedding());
    for (size_t i = 0; i < samples_.size(); ++i) {
      QB_TRY(model().embed(samples_[i], rows(x_, i).data()));
      QB_TRY(states_->store(place(to, i), rows(x_, i)));
    }
    return {};
  }
  Result<void> copy(size_t from, size_t to) {
    for (size_t i = 0; i < samples_.size(); ++i) {
      QB_TRY(states_->load(place(from, i), rows(x_, i)));
      QB_TRY(states_->store(place(to, i), rows(x_, i)));
    }
    return {};
  }
  // Through the loaded layer.
  Result<void> advance(size_t from, size_t to) {
    return run(
        from, [&](size_t i, std::span<const float> y) { return states_->store(place(to, i), y); }, samples_.size());
  }
  // Through the loaded layer, compared with what is at `truth`; all of it is kept at `to`, if there is one. The root of the mean over the tokens of the squares
  // of relative errors: so the first token, whose hidden states may be a thousand times as large as all others', is one of many. Some samples are enough for
  // it.
  Result<double> compare(size_t from, size_t truth, std::optional<size_t> to) {
    double sum = 0;
    uint64_t compared = 0;
    const auto width = static_cast<size_t>(model().hidden());
    const auto take = [&](size_t i, std::span<const float> y) -> Result<void> {
      if (i < error_samples_) {
        compared += samples_[i].size();
        QB_TRY(states_->load(place(truth, i), rows(other_, i)));
        for (size_t at = 0; at < y.size(); at += width) {
          RelativeError error;
          error.add(y.subspan(at, width), std::span(other_).subspan(at, width));
          sum += error.numbers > 0 ? error.differences / error.numbers : error.differences > 0 ? 1 : 0;
        }
      }
      return to ? states_->store(place(*to, i), y) : Result<void>();
    };
    QB_TRY(run(from, take, to ? samples_.size() : error_samples_));
    return std::sqrt(sum / static_cast<double>(compared));
  }
  // Behind the last layer: the mean divergence of what is at each of the places from what is at `truth`.
  Result<std::vector<double>> divergences(size_t truth, std::span<const size_t> places) {
    QB_ASSIGN(const int64_t vocab, model().load_head());
    const int64_t hidden = model().hidden();
    const int64_t at_once = std::clamp<int64_t>(static_cast<int64_t>(logits_at_once / (static_cast<uint64_t>(vocab) * sizeof(float))), 1, longest_);
    std::vector<float> theirs(static_cast<size_t>(at_once * vocab)), ours(theirs.size());
    std::vector<double> sums(places.size());
    engine::Divergence divergence(o_.pool, context_.isa);
    for (size_t i = 0; i < samples_.size(); ++i) {
      QB_TRY(states_->load(place(truth, i), rows(x_, i)));
      for (int64_t begin = 0; begin < tokens_[i]; begin += at_once) {
        const int64_t count = std::min(at_once, tokens_[i] - begin);
        const auto numbers = static_cast<size_t>(count * vocab);
        QB_TRY(model().logits(x_.data() + begin * hidden, count, theirs.data()));
        divergence.begin(std::span(theirs).first(numbers), static_cast<size_t>(vocab));
        for (size_t p = 0; p < places.size(); ++p) {
          if (context_.stop()) return Error{Errc::cancelled, "interrupted"};
          QB_TRY(states_->load(place(places[p], i), rows(other_, i)));
          QB_TRY(model().logits(other_.data() + begin * hidden, count, ours.data()));
          sums[p] += divergence.of(std::span(ours).first(numbers));
        }
      }
      done_ += samples_[i].size() * places.size() * head_passes();
      report();
    }
    for (double& sum : sums) sum /= static_cast<double>(all_tokens_);
    return sums;
  }
  // How many layers' time the head takes, roughly.
  uint64_t head_passes() const {
    uint64_t head = 0, layers = 0;
    for (const ir::Module& m : running.modules) {
      const uint64_t weights = static_cast<uint64_t>(m.n) * static_cast<uint64_t>(m.k);
      if (m.kind == arch::Kind::embedding)
        head = std::max(head, weights);
      else if (m.kind == arch::Kind::linear && m.topology >= 0 && running.topology.modules[static_cast<size_t>(m.topology)].layer >= 0)
        layers += weights;
    }
    const auto count = static_cast<uint64_t>(std::max<int64_t>(running.topology.layers, 1));
    return layers == 0 ? 1 : head * count / layers + 1;
  }

 private:
  size_t place(size_t at, size_t sample) const { return at * samples_.size() + sample; }
  std::span<float> rows(std::vector<float>& of, size_t sample) { return std::span(of).first(static_cast<size_t>(tokens_[sample] * model().hidden())); }

  template <class F>
  Result<void> run(size_t from, const F& take, size_t samples) {
    for (size_t i = 0; i < samples; ++i) {
      if (context_.stop()) return Error{Errc::cancelled, "interrupted"};
      QB_TRY(states_->load(place(from, i), rows(x_, i)));
      QB_TRY(model().run(rows(x_, i).data(), tokens_[i]));
      QB_TRY(take(i, rows(x_, i)));
      done_ += samples_[i].size();
      report();
    }
    return {};
  }
  void report() const {
    if (o_.progress) o_.progress({std::min(done_, total_), total_});
  }

  const Session& s_;
  Samples samples_;
  Context& context_;
  const SensitivityOptions& o_;
  std::vector<int64_t> tokens_;
  uint64_t all_tokens_ = 0, done_ = 0, total_ = 0;
  size_t error_samples_ = 0;  // on which errors of layers are measured
  int64_t longest_ = 0;
  std::unique_ptr<Streamed> streamed_;
  std::optional<calib::HiddenStates> states_;
  std::vector<float> x_, other_;
};

// Layers whose groups are measured in one go through the model.
struct Band {
  int64_t begin = 0, end = 0;
  std::vector<Missing> work;
  size_t follows = 0;
};

std::vector<Band> bands_of(Sensitivity by, const MixSpace& space, const SensitivityFile& file) {
  const int64_t layers = space.plain.topology.layers, height = std::max<int64_t>((layers + most_bands - 1) / most_bands, 1);
  std::vector<Band> out;
  for (size_t g = 0; g < space.groups.size(); ++g) {  // in the order of the layers
    Missing work = missing_of(by, space, file, g);
    if (work.options.empty()) continue;
    const int64_t begin = space.groups[g].layer / height * height;
    if (out.empty() || out.back().begin != begin) out.push_back({.begin = begin, .end = std::min(layers, begin + height), .work = {}, .follows = 0});
    out.back().follows += work.follow ? 1 : 0;
    out.back().work.push_back(std::move(work));
  }
  return out;
}

// How often all tokens go through a layer.
uint64_t passes_of(const Band& band, const MixSpace& space, uint64_t head) {
  const auto layers = static_cast<uint64_t>(space.plain.topology.layers);
  uint64_t out = static_cast<uint64_t>(band.end - band.begin) + band.follows * head;
  for (const Missing& w : band.work)
    if (w.follow) out += layers - static_cast<uint64_t>(space.groups[w.group].layer);
  return out;
}

// Where hidden states lie in a sweep over bands.
constexpr size_t truth = 0, next = 1, first_start = 2;

Result<void> measure_band(const Band& band, size_t start, size_t first_change, const MixSpace& space, SensitivityFile& file, Sweep& sweep) {
  std::vector<size_t> places, changed;  // of the changes that go to the output, and their work
  for (int64_t layer = band.begin; layer < space.plain.topology.layers; ++layer) {
    if (layer >= band.end && places.empty()) return file.save();
    QB_TRY(sweep.model().load(layer));
    for (const size_t p : places) QB_TRY(sweep.advance(p, p));
    if (layer >= band.end) continue;
    QB_TRY(sweep.advance(start, next));
    for (size_t w = 0; w < band.work.size(); ++w) {
      const Missing& work = band.work[w];
      const MixGroup& g = space.groups[work.group];
      if (g.layer != layer) continue;
      for (const size_t o : work.options) {
        space.set(sweep.running, work.group, o);
        QB_TRY(sweep.model().load(layer));
        std::optional<size_t> to;
        if (work.follow == o) {
          to = first_change + places.size();
          places.push_back(*to);
          changed.push_back(w);
        }
        QB_ASSIGN(file.at(g.match, key_of(space, g, g.options[o])).error, sweep.compare(start, next, to));
      }
      for (const size_t i : g.modules) sweep.running.modules[i] = space.plain.modules[i];
    }
    QB_TRY(sweep.copy(next, start));
  }
  if (places.empty()) return file.save();
  QB_ASSIGN(const std::vector<double> divergences, sweep.divergences(truth, places));
  for (size_t c = 0; c < changed.size(); ++c) {
    const Missing& work = band.work[changed[c]];
    const MixGroup& g = space.groups[work.group];
    file.at(g.match, key_of(space, g, g.options[*work.follow])).divergence = divergences[c];
  }
  return file.save();
}

}  // namespace

Result<void> measure_layers(Sensitivity by, const Session& s, const MixSpace& space, Samples samples, SensitivityFile& file, Context& context,
                            const SensitivityOptions& options) {
  const std::vector<Band> bands = bands_of(by, space, file);
  if (bands.empty()) return {};
  Sweep sweep(s, space, samples, context, options);
  size_t most = 0;
  const auto layers = static_cast<uint64_t>(space.plain.topology.layers);
  uint64_t passes = layers, error_passes = 0;
  for (const Band& b : bands) {
    most = std::max(most, b.follows);
    passes += passes_of(b, space, sweep.head_passes());
    for (const Missing& w : b.work) error_passes += w.options.size() - (w.follow ? 1 : 0);
  }
  sweep.expect(passes, error_passes);
  const size_t first_change = first_start + bands.size();
  QB_TRY(sweep.open(first_change + most));
  QB_TRY(sweep.embed(truth));
  size_t begun = 0;
  for (int64_t layer = 0; layer < space.plain.topology.layers; ++layer) {
    if (begun < bands.size() && bands[begun].begin == layer) QB_TRY(sweep.copy(truth, first_start + begun++));
    QB_TRY(sweep.model().load(layer));
    QB_TRY(sweep.advance(truth, truth));
  }
  for (size_t b = 0; b < bands.size(); ++b) QB_TRY(measure_band(bands[b], first_start + b, first_change, space, file, sweep));
  return {};
}

Result<std::vector<double>> mixture_divergences(const Session& s, const MixSpace& space, std::span<const Mix> mixes, Samples samples, SensitivityFile& file,
                                                Context& context, const SensitivityOptions& options) {
  std::map<std::string, size_t> left;  // the first of each name
  for (size_t m = 0; m < mixes.size(); ++m)
    if (const std::string name = name_of(space, mixes[m]); !file.mixture(name)) left.emplace(name, m);
  if (!left.empty()) {
    Sweep sweep(s, space, samples, context, options);
    const auto layers = static_cast<uint64_t>(space.plain.topology.layers);
    sweep.expect(layers + left.size() * (layers + sweep.head_passes()), 0);
    QB_TRY(sweep.open(1 + left.size()));
    QB_TRY(sweep.embed(truth));
    std::vector<size_t> places;
    for (size_t p = 1; p <= left.size(); ++p) {
      QB_TRY(sweep.copy(truth, p));
      places.push_back(p);
    }
    for (int64_t layer = 0; layer < space.plain.topology.layers; ++layer) {
      sweep.running = space.plain;
      QB_TRY(sweep.model().load(layer));
      QB_TRY(sweep.advance(truth, truth));
      size_t place = 1;
      for (const auto& [name, m] : left) {
        for (size_t g = 0; g < space.groups.size(); ++g)
          if (space.groups[g].layer == layer) space.set(sweep.running, g, mixes[m][g]);
        QB_TRY(sweep.model().load(layer));
        QB_TRY(sweep.advance(place, place));
        ++place;
      }
    }
    QB_ASSIGN(const std::vector<double> found, sweep.divergences(truth, places));
    size_t at = 0;
    for (const auto& [name, m] : left) file.set_mixture(name, found[at++]);
    QB_TRY(file.save());
  }
  std::vector<double> out;
  for (const Mix& m : mixes) out.push_back(file.mixture(name_of(space, m)).value_or(0));
  return out;
}

namespace {

// Of a weight that a recipe makes, against the plain numbers that it is made of; block by block.
Result<void> add_weight_error(const ir::Module& m, Source& source, Context& context, RelativeError& error, const std::function<void(uint64_t)>& done) {
  prog::Program p;
  const layer::Numbers numbers = layer::numbers_of(m, false, p);
  const ir::Stored& plain = *m.part(ir::Role::code);
  prog::Dequantize made{.type = m.scheme->weight, .code = numbers.code->value, .scale = numbers.scale->value};
  if (numbers.global) {
    made.global = numbers.global->value;
    made.global_form = numbers.global->form;
  }
  if (numbers.zero) made.zero = numbers.zero->value;
  p.ops.emplace_back(made);
  p.outputs.push_back({.name = m.path, .dtype = Elem::f32, .shape = {m.n, m.k}, .value = numbers.next});
  p.outputs.push_back({.name = plain.tensor, .dtype = Elem::f32, .shape = {m.n, m.k}, .value = numbers.next + 1});
  if (plain.elem == Elem::f32)
    p.ops.emplace_back(prog::Copy{0});
  else
    p.ops.emplace_back(prog::Recode{0, Elem::f32});
  QB_TRY(prog::type_check(p));
  const int64_t height = std::max(rows_within(p, context.limits.memory_budget / 4), p.row_multiple);
  const auto most = static_cast<size_t>(std::min(height, m.n) * m.k);
  std::vector<float> found(most), truth_numbers(most);
  for (int64_t begin = 0; begin < m.n; begin += height) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    const RowRange rows{begin, std::min(m.n, begin + height)};
    const auto count = static_cast<size_t>((rows.end - rows.begin) * m.k);
    const std::span<std::byte> outputs[] = {std::as_writable_bytes(std::span(found).first(count)),
                                            std::as_writable_bytes(std::span(truth_numbers).first(count))};
    QB_TRY(execute_rows(p, rows, source, outputs, context));
    error.add(std::span(found).first(count), std::span(truth_numbers).first(count));
    done(count);
  }
  return {};
}

}  // namespace

Result<void> measure_weights(const Session& s, const MixSpace& space, SensitivityFile& file, Context& context, const SensitivityOptions& options) {
  uint64_t done = 0, total = 0;
  for (const MixGroup& g : space.groups) total += g.weights * g.options.size();
  const auto step = [&](uint64_t count) {
    done += count;
    if (options.progress) options.progress({done, total});
  };
  for (const MixGroup& g : space.groups) {
    bool measured = false;
    for (const MixOption& o : g.options) {
      if (!quantizes(space, o) || file.seen(g.match, key_of(space, g, o)).error) {
        step(g.weights);
        continue;
      }
      RelativeError error;
      for (const size_t i : g.modules) QB_TRY(add_weight_error(space.made[o.scheme].at(i), *s.package.source, context, error, step));
      file.at(g.match, key_of(space, g, o)).error = error.value();
      measured = true;
    }
    if (measured) QB_TRY(file.save());
  }
  return {};
}

std::vector<calib::Item> mix_items(const MixSpace& space, const SensitivityFile& file, Sensitivity by) {
  std::vector<calib::Item> out;
  for (const MixGroup& g : space.groups) {
    const bool at_output = by == Sensitivity::divergence;
    double unit = by == Sensitivity::weights ? static_cast<double>(g.weights) / static_cast<double>(space.weights) : 1;  // what a squared error of 1 costs
    if (at_output) {
      const SensitivityFile::Seen known = file.seen(g.match, key_of(space, g, g.options[followed(space, file, g)]));
      unit = *known.error > 0 ? *known.divergence / (*known.error * *known.error) : 0;
    }
    calib::Item item;
    for (const MixOption& o : g.options) {
      const SensitivityFile::Seen seen = quantizes(space, o) ? file.seen(g.match, key_of(space, g, o)) : SensitivityFile::Seen{0, 0};
      item.push_back({o.bytes, at_output && seen.divergence ? *seen.divergence : unit * *seen.error * *seen.error});
    }
    out.push_back(std::move(item));
  }
  return out;
}

}  // namespace qb
