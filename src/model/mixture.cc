#include "model/mixture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "host/host.h"

namespace qb::model {
namespace {

using layer::FeedForward;
using layer::Linear;

void add_parts(const FeedForward& f, const std::string& path, const FeedForwardNames& names, NamedLinears& out) {
  out.emplace_back(fmt::format("{}.{}", path, f.fused ? "gate_up_proj" : names.gate), &f.gate);
  if (!f.fused) out.emplace_back(fmt::format("{}.{}", path, names.up), &f.up);
  out.emplace_back(fmt::format("{}.{}", path, names.down), &f.down);
}

class Dense final : public Sublayer {
 public:
  Dense(std::string path, const FeedForwardNames& names, FeedForward parts) : path_(std::move(path)), names_(names), parts_(std::move(parts)) {}
  int64_t scratch_per_row() const override { return parts_.scratch_per_row(); }
  void run(const Step& step, float* x, float* scratch) override { parts_.run(x, step.pass.count(), x, scratch, step.tools); }
  const Linear& first() const override { return parts_.gate; }
  void add_linears(NamedLinears& out) const override { add_parts(parts_, path_, names_, out); }

 private:
  std::string path_;
  FeedForwardNames names_;
  FeedForward parts_;
};

class Mixture final : public Sublayer {
 public:
  explicit Mixture(MixtureSpec spec) : s_(std::move(spec)) {}

  Result<void> load(Loader& l) {
    layer::Routing& r = s_.routing;
    const bool groups = r.groups >= 1 && r.experts % r.groups == 0 && r.top_groups >= 1 && r.top_groups <= r.groups;
    if (r.experts < 1 || r.top < 1 || r.top > r.experts || !groups ||
        (r.judge == layer::Routing::Judge::best_two && r.groups > 1 && r.experts / r.groups < 2)) {
      return Error{Errc::invalid_argument,
                   fmt::format("config.json: {} of {} experts, in {} of {} groups, cannot be chosen", r.top, r.experts, r.top_groups, r.groups)};
    }
    QB_ASSIGN(router_, l.exact_linear(s_.router, r.experts, s_.expert.hidden));
    if (!s_.bias.empty()) {
      QB_ASSIGN(r.bias, l.plain(s_.router, s_.bias, r.experts));
    }
    std::vector<FeedForward> experts;
    const layer::Experts::Place place = l.experts(r.experts);
    for (int64_t e = 0; e < place.here; ++e) {
      QB_ASSIGN(FeedForward one, load_parts(l, fmt::format("{}.{}", s_.experts, place.first + e), s_.expert));
      experts.push_back(std::move(one));
      host::sample_memory();
    }
    experts_ = {std::move(experts), s_.expert.hidden, place};
    if (!s_.shared.empty()) {
      QB_ASSIGN(shared_, load_parts(l, s_.shared, {.hidden = s_.expert.hidden, .activation = s_.expert.activation}));
    }
    if (!s_.shared_gate.empty()) {
      QB_ASSIGN(shared_gate_, l.exact_linear(s_.shared_gate, 1, s_.expert.hidden));
    }
    return {};
  }

  int64_t scratch_per_row() const override {
    const int64_t parts = std::max(experts_.scratch_per_row(s_.routing.top), s_.shared.empty() ? 0 : s_.expert.hidden + 1 + shared_.scratch_per_row());
    return s_.routing.experts + s_.routing.top + s_.expert.hidden + parts;
  }

  const Linear& first() const override { return router_; }
  void add_linears(NamedLinears& out) const override {
    out.emplace_back(s_.router, &router_);
    for (size_t e = 0; e < experts_.here().size(); ++e)
      add_parts(experts_.here()[e], fmt::format("{}.{}", s_.experts, experts_.first() + static_cast<int64_t>(e)), s_.expert.names, out);
    if (!s_.shared.empty()) add_parts(shared_, s_.shared, {}, out);
    if (!s_.shared_gate.empty()) out.emplace_back(s_.shared_gate, &shared_gate_);
  }

  void run(const Step& step, float* x, float* scratch) override {
    const int64_t rows = step.pass.count(), hidden = s_.expert.hidden, top = s_.routing.top;
    const layer::Tools& t = step.tools;
    float* const logits = scratch;
    float* const weights = logits + rows * s_.routing.experts;
    float* const sum = weights + rows * top;
    float* const rest = sum + rows * hidden;
    router_.run(x, rows, logits, t.workspace, t.pool);
    chosen_.resize(static_cast<size_t>(rows * top));
    layer::route(s_.routing, logits, rows, chosen_.data(), weights, buffers_);
    experts_.run(x, rows, top, chosen_.data(), weights, sum, rest, t);
    if (!s_.shared.empty()) add_shared(rows, x, sum, rest, t);
    std::copy_n(sum, rows * hidden, x);
  }

 private:
  void add_shared(int64_t rows, const float* x, float* sum, float* scratch, const layer::Tools& t) {
    const int64_t hidden = s_.expert.hidden;
    float* const y = scratch;
    float* const gates = y + rows * hidden;
    shared_.run(x, rows, y, gates + rows, t);
    if (!s_.shared_gate.empty()) shared_gate_.run(x, rows, gates, t.workspace, t.pool);
    for (int64_t row = 0; row < rows; ++row) {
      const float gate = s_.shared_gate.empty() ? 1.0F : 1.0F / (1.0F + std::exp(-gates[row]));
      for (int64_t i = row * hidden; i < (row + 1) * hidden; ++i) sum[i] += gate * y[i];
    }
  }

  MixtureSpec s_;
  Linear router_, shared_gate_;
  layer::Experts experts_;
  FeedForward shared_;
  std::vector<int32_t> chosen_;
  layer::RouteBuffers buffers_;
};

}  // namespace

Result<FeedForward> load_parts(Loader& l, const std::string& path, const FeedForwardSpec& spec) {
  FeedForward f;
  f.fused = l.find(path + ".gate_up_proj") != nullptr;
  f.activation = spec.activation;
  const FeedForwardNames& names = spec.names;
  int64_t width = spec.width;
  QB_ASSIGN(f.gate, l.linear(fmt::format("{}.{}", path, f.fused ? "gate_up_proj" : names.gate), f.fused ? 2 * width : width, spec.hidden));
  if (f.fused) {
    width = f.gate.n() / 2;
    if (f.gate.n() % 2 != 0) return Error{Errc::invalid_argument, fmt::format("{}.gate_up_proj: {} rows are not two halves", path, f.gate.n())};
  } else {
    width = f.gate.n();
    QB_ASSIGN(f.up, l.linear(fmt::format("{}.{}", path, names.up), width, spec.hidden));
  }
  QB_ASSIGN(f.down, l.linear(fmt::format("{}.{}", path, names.down), spec.hidden, width));
  return f;
}

Result<std::unique_ptr<Sublayer>> load_feed_forward(Loader& l, const std::string& path, const FeedForwardSpec& spec) {
  QB_ASSIGN(FeedForward parts, load_parts(l, path, spec));
  return std::unique_ptr<Sublayer>(std::make_unique<Dense>(path, spec.names, std::move(parts)));
}

Result<std::unique_ptr<Sublayer>> load_mixture(Loader& l, const MixtureSpec& spec) {
  auto out = std::make_unique<Mixture>(spec);
  QB_TRY(out->load(l));
  return std::unique_ptr<Sublayer>(std::move(out));
}

}  // namespace qb::model
