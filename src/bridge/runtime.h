// A checkpoint that can speak: session, packed weights, cache, tokenizer, chat template, stop tokens.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bridge/session.h"
#include "bridge/team.h"
#include "engine/generate.h"
#include "host/arena.h"
#include "host/threads.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace qb {

struct RuntimeOptions {
  model::Options model;
  int threads = 1;
  int64_t context = 0;                  // tokens that the cache holds; 0: the model's positions, at most 4096
  host::Communicator* world = nullptr;  // the ranks that share the model; loading is collective then, and so is every forward
  arch::Ranks ranks;                    // as many as there are in `world`
};

// What a model's loading refuses lies in the checkpoint, its scheme or its config: bad_input. Unless kernels are denied: then the call may ask for too much.
Error refusal(Error error, const oracle::Policy& policy);

// Makes an opened checkpoint one that can be run: contradictions that change no value are settled. Errors: bad_input (problems() of the session say what, or it
// is the part of one rank), io.
Result<void> make_runnable(Session& session, Context& context);

class Runtime {
 public:
  // Opens, checks and loads. Errors: bad_input (problems() of the session say what), out_of_memory, io.
  static Result<std::unique_ptr<Runtime>> load(Session session, const RuntimeOptions& options, Context& context);
  // Of the cache blocks that a sequence of so many tokens fills; blocks that are never written take no memory.
  uint64_t kv_bytes(int64_t tokens) const;

  Session session;
  std::optional<RankedModel> ranks;  // outlives the model
  host::Arena weights, cache_memory;
  std::unique_ptr<host::ThreadPool> pool;
  std::unique_ptr<model::Model> model;
  std::optional<model::KvCache> cache;
  int64_t context_tokens = 0;
  std::vector<int32_t> stop_ids;
};

// All of a file. Errors: not_found.
Result<std::string> read_file(const std::filesystem::path&);
// tokenizer.json of the checkpoint. Errors: not_found (says that --ids works without one), bad_input.
Result<text::Tokenizer> load_tokenizer(const Session&);
struct ChatMessage {
  std::string role, content;
};
// The prompt of a chat up to where the assistant answers, by the checkpoint's template (chat_template.jinja, or in tokenizer_config.json).
Result<std::string> chat_prompt(const Session&, std::span<const ChatMessage> messages);

}  // namespace qb
