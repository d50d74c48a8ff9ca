#include "bridge/layer_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <set>

#include "calib/hidden_states.h"

namespace qb {
namespace {

// Outputs of linears: those of one model are kept, sample by sample, and the other's are compared with them.
class Outputs {
 public:
  class Keeping final : public layer::Observers {
   public:
    explicit Keeping(Outputs& all) : all_(all) {}
    layer::Observer* of(const std::string& path, ir::Role role) override { return role == ir::Role::output_scale ? &all_.at(path).keeper : nullptr; }

   private:
    Outputs& all_;
  };
  class Comparing final : public layer::Observers {
   public:
    explicit Comparing(Outputs& all) : all_(all) {}
    layer::Observer* of(const std::string& path, ir::Role role) override { return role == ir::Role::output_scale ? &all_.at(path).comparer : nullptr; }

   private:
    Outputs& all_;
  };

  // Of experts, as the topology has them, nothing is kept.
  void leave_out(const arch::Topology& t) {
    for (const arch::Module& m : t.modules) {
      if (!m.of_experts.empty()) experts_.insert(m.path);
      if (m.kind == arch::Kind::expert) stacks_.insert(m.path.substr(0, m.path.rfind('.') + 1));
    }
  }
  void begin_sample() {
    for (auto& [path, one] : all_) {
      one->kept.clear();
      one->compared = 0;
    }
  }
  std::map<std::string, double> take() {
    std::map<std::string, double> out;
    for (const auto& [path, one] : all_)
      if (one->matched) out.emplace(path, one->error.value());
    all_.clear();
    return out;
  }

 private:
  struct One {
    struct Keeper final : layer::Observer {
      One* one = nullptr;
      void see(const float* y, int64_t rows, int64_t width) override {
        if (one->kept_at_all) one->kept.insert(one->kept.end(), y, y + rows * width);
      }
    } keeper;
    struct Comparer final : layer::Observer {
      One* one = nullptr;
      void see(const float* y, int64_t rows, int64_t width) override {
        const auto count = static_cast<size_t>(rows * width);
        if (count > one->kept.size() - one->compared) return;
        one->error.add({y, count}, std::span(one->kept).subspan(one->compared, count));
        one->compared += count;
        one->matched = true;
      }
    } comparer;
    bool kept_at_all = true, matched = false;
    std::vector<float> kept;
    size_t compared = 0;
    RelativeError error;
  };
  // Those of a stack are linears below the module that holds it.
  bool is_expert(const std::string& path) const {
    return experts_.contains(path) || std::any_of(stacks_.begin(), stacks_.end(), [&](const std::string& holder) { return path.starts_with(holder); });
  }
  One& at(const std::string& path) {
    std::unique_ptr<One>& one = all_[path];
    if (one == nullptr) {
      one = std::make_unique<One>();
      one->keeper.one = one->comparer.one = one.get();
      one->kept_at_all = !is_expert(path);
    }
    return *one;
  }

  std::map<std::string, std::unique_ptr<One>> all_;  // of the layer that is loaded
  std::set<std::string> experts_, stacks_;
};

Result<void> check_alike(const model::LayerStream& a, const Session& found, const model::LayerStream& b, const Session& truth) {
  if (found.rotated != truth.rotated)
    return Error{Errc::bad_input, "a rotated model has its hidden states and values in another basis: layers cannot be compared, logits can (eval --against)"};
  if (a.layers() == b.layers() && a.hidden() == b.hidden()) return {};
  return Error{Errc::bad_input, fmt::format("{} has {} layers of width {}, {} has {} of width {}", found.path.string(), a.layers(), a.hidden(),
                                            truth.path.string(), b.layers(), b.hidden())};
}

}  // namespace

void RelativeError::add(std::span<const float> found, std::span<const float> truth) {
  for (size_t i = 0; i < truth.size(); ++i) {
    const double y = static_cast<double>(truth[i]), d = static_cast<double>(found[i]) - y;
    differences += d * d;
    numbers += y * y;
  }
}

double RelativeError::value() const {
  if (differences == 0) return 0;
  return numbers > 0 ? std::sqrt(differences / numbers) : std::numeric_limits<double>::infinity();
}

Result<std::vector<LayerError>> layer_errors(const Session& found, const Session& truth, std::span<const std::vector<int32_t>> samples, Context& context,
                                             const LayerErrorsOptions& o) {
  Outputs outputs;
  outputs.leave_out(found.checkpoint.topology);
  outputs.leave_out(truth.checkpoint.topology);
  Outputs::Keeping keeping(outputs);
  Outputs::Comparing comparing(outputs);
  model::Options with = o.model;
  with.exact_inputs = true;
  with.linear.observers = &keeping;
  QB_ASSIGN(const std::unique_ptr<Streamed> true_model, Streamed::open(truth, truth.checkpoint, o.pool, context, with));
  with.linear.observers = &comparing;
  QB_ASSIGN(const std::unique_ptr<Streamed> found_model, Streamed::open(found, found.checkpoint, o.pool, context, with));
  model::LayerStream &x = true_model->model(), &y = found_model->model();
  QB_TRY(check_alike(y, found, x, truth));

  std::vector<int64_t> tokens;
  int64_t longest = 0, total = 0;
  for (const std::vector<int32_t>& s : samples) {
    tokens.push_back(static_cast<int64_t>(s.size()));
    longest = std::max(longest, tokens.back());
    total += tokens.back();
  }
  const auto states = [&] { return calib::HiddenStates::make(tokens, x.hidden(), o.memory / 2, o.scratch); };
  QB_ASSIGN(calib::HiddenStates true_states, states());
  QB_ASSIGN(calib::HiddenStates found_states, states());
  const auto numbers = static_cast<size_t>(longest * x.hidden());
  std::vector<float> true_rows(numbers), found_rows(numbers);
  const auto rows = [&](std::vector<float>& of, size_t sample) { return std::span(of).first(static_cast<size_t>(tokens[sample] * x.hidden())); };
  for (auto& [model, into] : {std::pair{&x, &true_states}, {&y, &found_states}}) {
    QB_TRY(model->load_embedding());
    for (size_t s = 0; s < samples.size(); ++s) {
      QB_TRY(model->embed(samples[s], rows(true_rows, s).data()));
      QB_TRY(into->store(s, rows(true_rows, s)));
    }
  }
  std::vector<LayerError> out;
  for (int64_t layer = 0; layer < x.layers(); ++layer) {
    QB_TRY(x.load(layer));
    QB_TRY(y.load(layer));
    RelativeError own, all;
    uint64_t done = 0;
    for (size_t s = 0; s < samples.size(); ++s) {
      if (context.stop()) return Error{Errc::cancelled, "interrupted"};
      const std::span<float> theirs = rows(true_rows, s), mine = rows(found_rows, s);
      outputs.begin_sample();
      QB_TRY(true_states.load(s, theirs));
      std::copy(theirs.begin(), theirs.end(), mine.begin());
      QB_TRY(x.run(theirs.data(), tokens[s]));
      QB_TRY(y.run(mine.data(), tokens[s]));
      own.add(mine, theirs);
      QB_TRY(true_states.store(s, theirs));
      outputs.begin_sample();  // nothing is kept: what follows is not compared
      QB_TRY(found_states.load(s, mine));
      QB_TRY(y.run(mine.data(), tokens[s]));
      all.add(mine, theirs);
      QB_TRY(found_states.store(s, mine));
      done += samples[s].size();
      if (o.progress)
        o.progress({static_cast<uint64_t>(layer) * static_cast<uint64_t>(total) + done, static_cast<uint64_t>(x.layers()) * static_cast<uint64_t>(total)});
    }
    out.push_back({own.value(), all.value(), outputs.take()});
  }
  return out;
}

}  // namespace qb
