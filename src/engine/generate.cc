#include "engine/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>

namespace qb::engine {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// How many tokens a sequence can have.
int64_t room(const model::Model& model, const model::KvCache& cache) {
  return std::min(model.max_positions(), cache.blocks() * model::KvCache::block_tokens);
}

// One sequence that owns the whole cache: its blocks are 0, 1, 2, ...
class Sequence {
 public:
  Sequence(model::Model& model, model::KvCache& cache) : model_(model), cache_(cache), table_(static_cast<size_t>(cache.blocks())) {
    std::iota(table_.begin(), table_.end(), 0);
  }
  // The tokens' logits, or those of the last one. `length`: of the whole prompt.
  Result<std::span<const float>> advance(std::span<const int32_t> ids, int64_t length, bool all) {
    const auto count = static_cast<int32_t>(ids.size());
    if (positions_.size() < ids.size()) positions_.resize(ids.size());
    const std::span<int32_t> positions = std::span(positions_).first(ids.size());
    std::iota(positions.begin(), positions.end(), next_);
    const int32_t offsets[] = {0, count}, lengths[] = {static_cast<int32_t>(length)};
    const std::span<const int32_t> table[] = {table_};
    next_ += count;
    return model_.forward({.ids = ids, .positions = positions, .offsets = offsets, .table = table, .all_logits = all, .lengths = lengths}, cache_);
  }
  int64_t tokens() const { return next_; }

 private:
  model::Model& model_;
  model::KvCache& cache_;
  std::vector<int32_t> table_, positions_;
  int32_t next_ = 0;
};

}  // namespace

Result<void> check_prompt(const model::Model& model, const model::KvCache& cache, std::span<const int32_t> ids) {
  if (ids.empty()) return Error{Errc::invalid_argument, "the prompt has no tokens"};
  const auto count = static_cast<int64_t>(ids.size());
  if (count > model.max_positions()) {
    return Error{Errc::invalid_argument, fmt::format("the prompt has {} tokens, the model has {} positions; shorten the prompt", count, model.max_positions())};
  }
  if (count > room(model, cache))
    return Error{Errc::invalid_argument,
                 fmt::format("the prompt has {} tokens, the KV cache holds {}; make the context larger or the prompt shorter", count, room(model, cache))};
  for (const int32_t id : ids)
    if (id < 0 || id >= model.vocab()) {
      return Error{Errc::invalid_argument, fmt::format("token id {} is not in the vocabulary of {}; the tokenizer is of another model", id, model.vocab())};
    }
  return {};
}

int64_t blocks_for(int64_t tokens) {
  return tokens / model::KvCache::block_tokens + (tokens % model::KvCache::block_tokens != 0 ? 1 : 0);
}

Result<Generated> generate(model::Model& model, model::KvCache& cache, std::span<const int32_t> prompt, const GenerateOptions& options) {
  Sequence sequence(model, cache);
  QB_TRY(check_prompt(model, cache, prompt));
  Generated out;
  if (options.max_new <= 0) return out;
  const auto length = static_cast<int64_t>(prompt.size());
  const auto chunk = static_cast<size_t>(std::max<int64_t>(options.prefill_chunk, 1));
  auto start = std::chrono::steady_clock::now();
  std::span<const float> logits;
  for (size_t at = 0; at < prompt.size(); at += chunk) {
    QB_ASSIGN(logits, sequence.advance(prompt.subspan(at, std::min(chunk, prompt.size() - at)), length, false));
  }
  out.prefill_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  out.ids.reserve(static_cast<size_t>(std::min(options.max_new, room(model, cache) - length + 1)));
  Sampler sampler(options.sampling);
  for (;;) {
    int32_t id = sampler.next(logits);
    if (options.ranks != nullptr) options.ranks->broadcast(std::as_writable_bytes(std::span(&id, 1)));
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      out.finish_reason = "stop";
      break;
    }
    out.ids.push_back(id);
    bool more = !options.on_token || options.on_token(id);
    if (options.ranks != nullptr) options.ranks->broadcast(std::as_writable_bytes(std::span(&more, 1)));
    if (!more) {
      out.finish_reason = "cancelled";
      break;
    }
    if (static_cast<int64_t>(out.ids.size()) >= options.max_new || sequence.tokens() >= room(model, cache)) break;
    QB_ASSIGN(logits, sequence.advance({&id, 1}, 0, false));
    ++out.decode_steps;
  }
  out.decode_seconds = seconds_since(start);
  return out;
}

Result<void> score(model::Model& model, model::KvCache& cache, std::span<const std::vector<int32_t>> chunks,
                   const std::function<bool(size_t, std::span<const float>)>& take) {
  for (size_t i = 0; i < chunks.size(); ++i) {
    Sequence sequence(model, cache);
    QB_TRY(check_prompt(model, cache, chunks[i]));
    QB_ASSIGN(const std::span<const float> logits, sequence.advance(chunks[i], static_cast<int64_t>(chunks[i].size()), true));
    if (!take(i, logits)) break;
  }
  return {};
}

}  // namespace qb::engine
