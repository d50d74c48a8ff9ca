// One sequence from prompt to text: prefill, decode, stop. The paged cache and the ragged forward below it already serve many.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/sampler.h"
#include "model/model.h"

namespace qb::engine {

struct GenerateOptions {
  Sampling sampling;
  int64_t max_new = 256;
  std::vector<int32_t> stop_ids;  // end the text; they are not a part of it
  int64_t prefill_chunk = 512;
  std::function<bool(int32_t id)> on_token;  // called for each new token; false stops
  host::Communicator* ranks = nullptr;       // that generate the same text together: rank 0 chooses the tokens, and stops
};

struct Generated {
  std::vector<int32_t> ids;
  const char* finish_reason = "length";  // stop, length, cancelled
  double prefill_seconds = 0, decode_seconds = 0;
  int64_t decode_steps = 0;
};

// Whether a prompt can be run at all: the errors that `generate` would have.
Result<void> check_prompt(const model::Model&, const model::KvCache&, std::span<const int32_t> prompt);

// The text ends after max_new tokens, or sooner where the model's positions or the cache's blocks are used up (length).
// With ranks, all of them call it with the same prompt. Errors: an empty prompt, a prompt longer than the model's positions or the cache (says both numbers),
// an id outside the vocabulary.
Result<Generated> generate(model::Model&, model::KvCache&, std::span<const int32_t> prompt, const GenerateOptions&);

// Logits of every position of independent chunks, for perplexity and comparisons: calls `take(chunk, logits [tokens, vocab])`; false stops.
Result<void> score(model::Model&, model::KvCache&, std::span<const std::vector<int32_t>> chunks,
                   const std::function<bool(size_t, std::span<const float>)>& take);

// Blocks of the cache that `tokens` tokens need.
int64_t blocks_for(int64_t tokens);

}  // namespace qb::engine
