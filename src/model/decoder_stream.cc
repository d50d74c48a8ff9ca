// A decoder whose layers are in memory one at a time.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "model/ends.h"

namespace qb::model {
namespace {

// One layer in memory, or one end of the vocabulary, and a cache for the keys and values of one layer and one sequence.
class DecoderStream final : public LayerStream {
 public:
  DecoderStream(DecoderBuilder builder, const Loading& loading)
      : loading_(loading),
        here_{loading.package, loading.checkpoint, memory_, loading.pool, loading.context, loading.options},
        builder_(std::move(builder)),
        runner_(builder_.parts.config, builder_.parts.ropes, loading) {
    builder_.load_with(here_);
  }

  int64_t layers() const override { return builder_.sizes().layers; }
  int64_t hidden() const override { return builder_.sizes().hidden; }
  int64_t max_positions() const override { return builder_.sizes().max_positions; }

  Result<void> load_embedding() override {
    QB_ASSIGN(embedding_, builder_.loader().embedding(loading_.checkpoint.topology.body + ".embed_tokens"));
    if (embedding_.k() == hidden()) return {};
    return Error{Errc::invalid_argument, fmt::format("the embedding is {} numbers wide, expected {}", embedding_.k(), hidden())};
  }

  Result<void> embed(std::span<const int32_t> ids, float* x) override {
    for (const int32_t id : ids)
      if (id < 0 || id >= embedding_.n()) return Error{Errc::invalid_argument, fmt::format("token id {} is not in the vocabulary of {}", id, embedding_.n())};
    model::embed(embedding_, builder_.parts, ids, x);
    return {};
  }

  Result<void> load(int64_t layer) override {
    unload();
    QB_ASSIGN(layer_[0], builder_.make_layer(builder_, layer));
    runner_.fit(layer_, nullptr);
    return {};
  }

  Result<int64_t> load_head() override {
    unload();
    QB_ASSIGN(ends_, load_ends(builder_.loader(), loading_.checkpoint.topology, builder_.parts));
    runner_.fit({}, &ends_.head);
    return ends_.vocab();
  }

  Result<void> logits(const float* x, int64_t rows, float* out) override {
    const int64_t at_once = runner_.pass_rows();
    QB_TRY(runner_.prepare(std::min(rows, at_once)));
    for (int64_t begin = 0; begin < rows; begin += at_once) {
      const int64_t count = std::min(at_once, rows - begin);
      runner_.norm(x + begin * hidden(), ends_.norm, count, runner_.normed());
      ends_.run(runner_.normed(), count, out + begin * ends_.vocab(), nullptr, runner_.tools().workspace, loading_.pool);
    }
    return {};
  }

  Result<void> run(float* x, int64_t tokens) override {
    return passes(x, tokens, [&](int64_t) { runner_.run(layer_[0], runner_.step(*cache_, false, layer::KvRounding::none), nullptr); });
  }

  Result<void> run_half(Half half, float* x, int64_t tokens, float* added) override {
    return passes(x, tokens, [&](int64_t begin) {
      runner_.run_half(layer_[0], half, runner_.step(*cache_, false, layer::KvRounding::none), added == nullptr ? nullptr : added + begin * hidden(), nullptr);
    });
  }

  Result<Half> half_of(const std::string& path) const override {
    const auto has = [&](const Sublayer& half) {
      NamedLinears linears;
      half.add_linears(linears);
      return std::any_of(linears.begin(), linears.end(), [&](const auto& each) { return each.first == path; });
    };
    if (has(*layer_[0].attention)) return Half::attention;
    if (has(*layer_[0].feed_forward)) return Half::feed_forward;
    return Error{Errc::invalid_argument, fmt::format("{} is no linear of the layer", path)};
  }

 private:
  // A sequence in passes, from its first token on; begin: of the pass. The rows are x's before and after.
  template <class F>
  Result<void> passes(float* x, int64_t tokens, const F& run_pass) {
    QB_TRY(make_room(tokens));
    const auto count = static_cast<size_t>(tokens);
    const int32_t offsets[] = {0, static_cast<int32_t>(tokens)}, lengths[] = {static_cast<int32_t>(tokens)};
    const std::span<const int32_t> table(blocks_);
    const Batch batch{.ids = {}, .positions = std::span(positions_).first(count), .offsets = offsets, .table = {&table, 1}, .lengths = lengths};
    const int64_t at_once = runner_.pass_rows();
    QB_TRY(runner_.prepare(std::min(tokens, at_once)));
    for (int64_t begin = 0; begin < tokens; begin += at_once) {
      runner_.begin(batch, begin, std::min(tokens, begin + at_once));
      const int64_t numbers = runner_.pass().count() * hidden();
      std::copy_n(x + begin * hidden(), numbers, runner_.x());
      run_pass(begin);
      std::copy_n(runner_.x(), numbers, x + begin * hidden());
    }
    return {};
  }

  void unload() {
    embedding_ = {};
    ends_ = {};
    layer_ = {};
    memory_.clear();
    builder_.load_with(here_);  // another loader: what the last one shared between modules is gone
  }

  Result<void> make_room(int64_t tokens) {
    if (tokens < 1 || tokens > max_positions())
      return Error{Errc::invalid_argument, fmt::format("a sequence of {} tokens, the model has {} positions", tokens, max_positions())};
    if (tokens <= static_cast<int64_t>(positions_.size())) return {};
    KvCache::Shape shape = builder_.parts.kv;
    shape.layers = 1;
    const int64_t blocks = (tokens + KvCache::block_tokens - 1) / KvCache::block_tokens;
    cache_.reset();
    cache_memory_.clear();
    QB_ASSIGN(cache_, KvCache::make(shape, Elem::f32, blocks, cache_memory_));
    blocks_.resize(static_cast<size_t>(blocks));
    std::iota(blocks_.begin(), blocks_.end(), 0);
    positions_.resize(static_cast<size_t>(tokens));
    std::iota(positions_.begin(), positions_.end(), 0);
    return {};
  }

  const Loading& loading_;
  host::Arena memory_, cache_memory_;
  const Loading here_;  // into memory_
  DecoderBuilder builder_;
  LayerRunner runner_;
  layer::Embedding embedding_;
  Ends ends_;
  std::array<DecoderLayer, 1> layer_;
  std::optional<KvCache> cache_;
  std::vector<int32_t> blocks_, positions_;
};

}  // namespace

Result<std::unique_ptr<LayerStream>> DecoderBuilder::stream() {
  const Loading& loading = *loading_;
  return std::unique_ptr<LayerStream>(std::make_unique<DecoderStream>(std::move(*this), loading));
}

}  // namespace qb::model
