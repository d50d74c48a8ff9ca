// Where a decoder meets its vocabulary: rows of the embedding on the way in; norm, head and logits on the way out.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "layer/embedding.h"
#include "model/decoder.h"

namespace qb::model {

// The vocabulary's ends. Of several ranks each has some of its words: their rows of the embedding, and their logits.
struct Ends {
  layer::Embedding embedding;
  layer::Linear head;
  std::string head_path;
  const float* norm = nullptr;          // before the head
  float softcap = 0;                    // of logits; 0: none
  host::Communicator* ranks = nullptr;  // null: all words are here
  std::vector<arch::Range> words;       // of each rank

  int64_t vocab() const { return ranks == nullptr ? head.n() : words.back().end; }
  // Of the rank that has most.
  int64_t most_words() const {
    int64_t most = 0;
    for (const arch::Range& r : words) most = std::max(most, r.size());
    return most;
  }
  // Floats beside the logits of `rows` tokens.
  int64_t scratch(int64_t rows) const { return ranks == nullptr ? 0 : (rows + ranks->size()) * most_words(); }
  void embed(const DecoderParts& parts, std::span<const int32_t> ids, float* x) const;
  void run(const float* x, int64_t rows, float* logits, float* scratch, std::span<std::byte> workspace, host::ThreadPool& pool) const;

 private:
  void run_shared(const float* x, int64_t rows, float* logits, float* scratch, std::span<std::byte> workspace, host::ThreadPool& pool) const;
};

// From the body's embed_tokens, its last norm and the head, which may be the embedding. Errors: sizes that are not the config's.
Result<Ends> load_ends(Loader& loader, const arch::Topology& topology, const DecoderParts& parts);

}  // namespace qb::model
