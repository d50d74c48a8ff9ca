#include "model/ends.h"

#include <fmt/format.h>

#include <cmath>

namespace qb::model {

void Ends::embed(const DecoderParts& parts, std::span<const int32_t> ids, float* x) const {
  if (ranks == nullptr) return model::embed(embedding, parts, ids, x);
  const arch::Range mine = words[static_cast<size_t>(ranks->rank())];
  const int64_t width = embedding.k();
  for (size_t i = 0; i < ids.size(); ++i) {
    float* const row = x + static_cast<int64_t>(i) * width;
    const auto own = static_cast<int32_t>(ids[i] - mine.begin);
    if (ids[i] >= mine.begin && ids[i] < mine.end)
      model::embed(embedding, parts, {&own, 1}, row);
    else
      std::fill_n(row, width, 0.0F);
  }
  ranks->sum(std::span(x, ids.size() * static_cast<size_t>(width)));  // one rank's numbers, and zeros
}

void Ends::run(const float* x, int64_t rows, float* logits, float* scratch, std::span<std::byte> workspace, host::ThreadPool& pool) const {
  if (ranks == nullptr) {
    head.run(x, rows, logits, workspace, pool);
  } else {
    run_shared(x, rows, logits, scratch, workspace, pool);
  }
  if (softcap <= 0) return;
  pool.ranges(rows * vocab(), 1024, [logits, cap = softcap](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
  });
}

void Ends::run_shared(const float* x, int64_t rows, float* logits, float* scratch, std::span<std::byte> workspace, host::ThreadPool& pool) const {
  const int64_t most = most_words(), mine = head.n();
  float* const own = scratch + ranks->size() * most;
  head.run(x, rows, own, workspace, pool);
  for (int64_t row = 0; row < rows; ++row) {
    // A rank with fewer words sends what lies behind them: the next row, or what is left of an earlier call.
    const std::span<const float> sent(own + row * mine, static_cast<size_t>(most));
    ranks->gather(std::as_bytes(sent), std::as_writable_bytes(std::span(scratch, sent.size() * words.size())));
    for (size_t r = 0; r < words.size(); ++r) std::copy_n(scratch + static_cast<int64_t>(r) * most, words[r].size(), logits + row * vocab() + words[r].begin);
  }
}

void embed(const layer::Embedding& table, const DecoderParts& parts, std::span<const int32_t> ids, float* x) {
  table.gather(ids, x);
  if (parts.embedding_scale == 1) return;
  const int64_t count = static_cast<int64_t>(ids.size()) * parts.config.hidden;
  for (int64_t i = 0; i < count; ++i) x[i] *= parts.embedding_scale;
}

Result<Ends> load_ends(Loader& l, const arch::Topology& t, const DecoderParts& parts) {
  Ends e;
  e.softcap = parts.logit_softcap;
  const std::string embed = t.body + ".embed_tokens";
  const ir::Module* own_head = l.find(t.head);
  // A tied head is the embedding, whatever else is stored; one that is quantized means itself.
  const bool shared = parts.config.tied && (own_head == nullptr || !own_head->scheme);
  e.head_path = shared ? embed : t.head;
  QB_ASSIGN(e.head, l.linear(e.head_path, 0, parts.config.hidden));
  QB_ASSIGN(const ir::Module* const table, l.need(embed));
  if (shared && !table->scheme) {
    QB_ASSIGN(e.embedding, layer::Embedding::share(e.head));
  } else {
    QB_ASSIGN(e.embedding, l.embedding(embed));
  }
  if (e.embedding.k() != parts.config.hidden || e.embedding.n() != e.head.n()) {
    return Error{Errc::invalid_argument,
                 fmt::format("{}: the weight is {} x {}, expected {} x {}", embed, e.embedding.n(), e.embedding.k(), e.head.n(), parts.config.hidden)};
  }
  QB_ASSIGN(e.norm, l.norm(t.body + ".norm", parts.config.hidden, parts.norm_plus));
  if (const Team* team = l.team(); team != nullptr && team->tensor != nullptr) {
    e.ranks = team->tensor;
    e.words = team->words;
    if (const arch::Range mine = e.words[static_cast<size_t>(e.ranks->rank())]; e.head.n() != mine.size())
      return Error{Errc::invalid_argument, fmt::format("{}: {} words are here, expected {}", e.head_path, e.head.n(), mine.size())};
  }
  return e;
}

}  // namespace qb::model
