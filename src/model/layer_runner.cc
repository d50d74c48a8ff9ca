#include "model/layer_runner.h"

#include <algorithm>

#include "layer/norm.h"

namespace qb::model {
namespace {

constexpr int64_t pass_bytes = 32 << 20, largest_pass = 512, smallest_pass = 16;

}  // namespace

LayerRunner::LayerRunner(const DecoderConfig& config, std::span<const layer::Rope> ropes, const Loading& loading)
    : config_(config), ropes_(ropes), pool_(loading.pool), every_expert_(loading.options.every_expert), turns_(ropes.size()) {
  features_ = loading.options.linear.cpu.features;
}

void LayerRunner::fit(std::span<const DecoderLayer> layers, const layer::Linear* head) {
  linears_.clear();
  scratch_per_row_ = prepared_rows_ = 0;
  for (const DecoderLayer& l : layers) {
    scratch_per_row_ = std::max({scratch_per_row_, l.attention->scratch_per_row(), l.feed_forward->scratch_per_row()});
    l.add_linears(linears_);
  }
  if (head != nullptr) linears_.emplace_back("", head);
  int64_t row = 2 * config_.hidden + scratch_per_row_;
  for (const layer::Rope& rope : ropes_) row += 2 * rope.half();
  pass_rows_ = std::clamp(pass_bytes / (4 * row) / smallest_pass * smallest_pass, smallest_pass, largest_pass);
}

Result<void> LayerRunner::prepare(int64_t rows) {
  if (rows <= prepared_rows_) return {};
  std::vector<std::pair<float**, int64_t>> parts{{&x_, config_.hidden}, {&normed_, config_.hidden}, {&scratch_, scratch_per_row_}};
  for (size_t i = 0; i < ropes_.size(); ++i) {
    parts.emplace_back(&turns_[i].first, ropes_[i].half());
    parts.emplace_back(&turns_[i].second, ropes_[i].half());
  }
  uint64_t bytes = 0;
  for (const auto& [part, width] : parts) bytes += aligned(static_cast<uint64_t>(width * rows) * sizeof(float));
  prepared_rows_ = 0;
  QB_ASSIGN(std::byte * at, buffer_.at_least(bytes));
  for (const auto& [part, width] : parts) {
    *part = reinterpret_cast<float*>(at);
    at += aligned(static_cast<uint64_t>(width * rows) * sizeof(float));
  }
  step_turns_.clear();
  for (size_t i = 0; i < ropes_.size(); ++i) step_turns_.push_back({turns_[i].first, turns_[i].second, ropes_[i].half()});
  // A kernel for fewer rows may want more than the one for many.
  size_t most = 0;
  for (const auto& [name, linear] : linears_)
    for (int64_t m = rows; m > 0; m = m > 16 ? m / 2 : m - 1) most = std::max(most, linear->workspace_bytes(m));
  QB_ASSIGN(std::byte* const space, workspace_buffer_.at_least(most));
  workspace_ = {space, most};
  prepared_rows_ = rows;
  return {};
}

void LayerRunner::begin(const Batch& batch, int64_t first, int64_t last) {
  pass_.cut(batch, first, last);
  for (size_t r = 0; r < pass_.runs.size(); ++r) {
    const layer::AttentionRun& run = pass_.runs[r];
    const auto positions = batch.positions.subspan(static_cast<size_t>(pass_.begin + run.first_row), static_cast<size_t>(run.count));
    for (size_t i = 0; i < ropes_.size(); ++i) {
      const int64_t at = run.first_row * ropes_[i].half();
      ropes_[i].table(positions, rope_length(batch, pass_.sequences[r]), turns_[i].first + at, turns_[i].second + at);
    }
  }
}

Step LayerRunner::step(KvCache& cache, bool reference, layer::KvRounding through) const {
  return {.pass = pass_, .cache = cache, .layer = 0, .ropes = step_turns_, .reference = reference, .through = through, .tools = tools()};
}

void LayerRunner::run(DecoderLayer& layer, const Step& step, const layer::Linear* next) {
  run_half(layer, LayerStream::Half::attention, step, nullptr, &layer.feed_forward->first());
  run_half(layer, LayerStream::Half::feed_forward, step, nullptr, next);
}

void LayerRunner::run_half(DecoderLayer& layer, LayerStream::Half which, const Step& step, float* added, const layer::Linear* next) {
  if (which == LayerStream::Half::attention)
    half(step, *layer.attention, layer.attention_norm, layer.attention_out_norm, added, next);
  else
    half(step, *layer.feed_forward, layer.feed_forward_norm, layer.feed_forward_out_norm, added, next);
}

void LayerRunner::norm(const float* x, const float* weight, int64_t rows, float* y) const {
  layer::rms_norm(x, weight, config_.eps, rows, config_.hidden, y, host::isa_of(features_), pool_);
}

void LayerRunner::half(const Step& step, Sublayer& sublayer, const float* weight, const float* out_weight, float* added, const layer::Linear* next) {
  const int64_t rows = pass_.count();
  norm(x_, weight, rows, normed_);
  sublayer.run(step, normed_, scratch_);
  if (next != nullptr) pool_.expect(next->codes());
  if (added != nullptr) std::copy_n(normed_, rows * config_.hidden, added);
  if (out_weight != nullptr) norm(normed_, out_weight, rows, normed_);
  const auto add = [this](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x_[i] += normed_[i];
  };
  const int64_t count = rows * config_.hidden;
  count < host::ThreadPool::worthwhile ? add(0, count) : pool_.ranges(count, 64, add);
}

}  // namespace qb::model
