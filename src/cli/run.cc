// run: generates text.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstring>
#include <iostream>
#include <iterator>

#include "base/json.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/ranks.h"
#include "cli/runtime_options.h"
#include "host/host.h"

namespace qb::cli {
namespace {

struct Options : ModelOptions {
  std::optional<std::string> prompt, ids;
  bool chat = false;
  int64_t n = 256, context = 0;
  engine::Sampling sampling;
};

bool parse_ids(const std::string& text, std::vector<int32_t>& out) {
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end) return false;
    out.push_back(id);
    at = end + 1;
  }
  return !out.empty();
}

// The prompt's tokens; the tokenizer is needed for text either way.
Result<std::vector<int32_t>> prompt_ids(const Options& o, const Session& s, const std::optional<text::Tokenizer>& tokenizer) {
  std::vector<int32_t> ids;
  if (o.ids) {
    if (!parse_ids(*o.ids, ids)) return Error{Errc::invalid_argument, fmt::format("--ids '{}' is no list of token ids: write 1,2,3", *o.ids)};
    return ids;
  }
  std::string prompt = *o.prompt;
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (prompt.empty()) return Error{Errc::invalid_argument, "the prompt is empty"};
  if (o.chat) {
    const ChatMessage message{"user", std::move(prompt)};
    QB_ASSIGN(prompt, chat_prompt(s, std::span(&message, 1)));
  }
  return tokenizer->encode(prompt, !o.chat);
}

// The speaker's prompt, which has the standard input and the tokenizer, on every rank.
Result<std::vector<int32_t>> shared_prompt(const Options& o, const Runtime& r, std::optional<text::Tokenizer>& tokenizer) {
  const auto of_speaker = [&]() -> Result<std::vector<int32_t>> {
    if (Result<text::Tokenizer> t = load_tokenizer(r.session); t)
      tokenizer = std::move(*t);
    else if (!o.ids)
      return t.error();
    if (tokenizer && tokenizer->size() > r.model->vocab())
      return Error{Errc::bad_input, fmt::format("tokenizer.json has ids up to {}, the model's vocabulary is {}", tokenizer->size() - 1, r.model->vocab())};
    QB_ASSIGN(std::vector<int32_t> ids, prompt_ids(o, r.session, tokenizer));
    QB_TRY(engine::check_prompt(*r.model, *r.cache, ids));
    return ids;
  };
  Result<std::vector<int32_t>> ids = is_speaker() ? of_speaker() : std::vector<int32_t>();
  if (ranks() == nullptr) return ids;
  std::string bytes;
  if (ids) bytes.assign(reinterpret_cast<const char*>(ids->data()), ids->size() * sizeof(int32_t));
  ranks()->broadcast_text(bytes);
  if (ids) {
    ids->resize(bytes.size() / sizeof(int32_t));
    std::memcpy(ids->data(), bytes.data(), bytes.size());
  }
  return ids;
}

int run(const Options& o) {
  const auto begin = std::chrono::steady_clock::now();
  if (o.prompt.has_value() == o.ids.has_value()) {
    print_err("quantbridge run: give --prompt TEXT or --ids 1,2,3\n");
    return exit_usage;
  }
  Context context;
  int code = exit_done;
  std::unique_ptr<Runtime> r = load_model("run", o, o.path, o.context, context, code);
  if (r == nullptr) return code;
  std::optional<text::Tokenizer> tokenizer;
  const Result<std::vector<int32_t>> prompt = agree(ranks(), shared_prompt(o, *r, tokenizer));
  if (!prompt) return fail("run", prompt.error(), o.common);
  const double load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  std::optional<text::TokenStream> stream;
  if (tokenizer) stream.emplace(*tokenizer);
  std::string text;
  engine::GenerateOptions options{.sampling = o.sampling, .max_new = o.n, .stop_ids = r->stop_ids, .ranks = ranks()};
  options.on_token = [&](int32_t id) {
    if (interrupted()) return false;
    if (stream)
      if (const Result<std::string> piece = stream->push(id); piece) {
        text += *piece;
        if (!o.common.json) {
          print_out(*piece);
          std::fflush(stdout);
        }
      }
    host::sample_memory();
    return true;
  };
  Result<engine::Generated> g = engine::generate(*r->model, *r->cache, *prompt, options);
  if (!g && ranks() != nullptr) end_ranks("run", g.error());
  if (!g) return fail("run", g.error(), o.common);
  const std::string rest = stream ? stream->finish() : std::string();
  text += rest;
  const auto rate = [](double count, double seconds) { return seconds > 0 ? count / seconds : 0.0; };
  const double prefill = rate(static_cast<double>(prompt->size()), g->prefill_seconds), decode = rate(static_cast<double>(g->decode_steps), g->decode_seconds);
  host::sample_memory();
  std::array<uint64_t, 3> sizes{r->model->resident_bytes(), r->kv_bytes(static_cast<int64_t>(prompt->size()) + g->decode_steps), host::peak_anonymous()};
  if (ranks() != nullptr) ranks()->sum(std::span(sizes));
  const auto& [packed, kv, anonymous] = sizes;
  if (o.common.json) {
    Json j = envelope("run", true, r->session.diag.all());
    j["prompt_ids"] = *prompt;
    j["ids"] = g->ids;
    j["text"] = tokenizer ? Json(text) : Json(nullptr);
    j["finish_reason"] = g->finish_reason;
    j["timings"] = {{"load_s", load_s}, {"prefill_tokens_per_s", prefill}, {"decode_tokens_per_s", decode}};
    j["packed_weight_bytes"] = packed;
    j["kv_bytes"] = kv;
    j["peak_anonymous_bytes"] = anonymous;
    print_json(j);
    return exit_done;
  }
  if (tokenizer)
    print_out(rest + "\n");
  else
    print_out(fmt::format("{}\n", fmt::join(g->ids, ",")));
  std::fflush(stdout);  // the text ends before what is said about it
  if (!o.common.quiet)
    print_err(fmt::format(
        "load {:.2f} s; {} prompt tokens at {:.1f} tokens/s, {} new at {:.1f} tokens/s ({}); {} of packed weights, {} of KV cache, peak {} of anonymous "
        "memory\n",
        load_s, prompt->size(), prefill, g->ids.size(), decode, g->finish_reason, size_text(packed), size_text(kv), size_text(anonymous)));
  return exit_done;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, *o);
  add_rank_options(app, *o);
  app.add_option("--prompt", o->prompt, "text; - reads it from stdin")->type_name("TEXT");
  app.add_option("--ids", o->ids, "token ids in place of text: 1,2,3")->type_name("IDS");
  app.add_flag("--chat", o->chat, "the prompt is a user's message: apply the chat template");
  app.add_option("-n", o->n, "new tokens at most")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--context", o->context, "tokens that the KV cache holds (default: the model's, at most 4096)")->check(CLI::PositiveNumber);
  app.add_option("--temperature", o->sampling.temperature, "0: greedy")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--top-p", o->sampling.top_p, "smallest set of tokens with this probability")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option("--top-k", o->sampling.top_k, "likeliest tokens only; 0: all")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--seed", o->sampling.seed, "of the sampler")->capture_default_str();
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(run) = {
    .name = "run", .summary = "Generate text from a checkpoint, exactly as its scheme says",
    .examples = "Examples:\n  quantbridge run ./SmolLM2-NVFP4 --chat --prompt 'What is the capital of France?'\n"
                "  quantbridge run ./model --prompt - -n 64 --temperature 0.8 --seed 7 < prompt.txt\n  quantbridge run ./model --ids 1,2,3 --reference --json\n"
                "  quantbridge run ./model-BF16 --quantization fp8_per_channel --prompt 'Once upon a time'\n"
                "  quantbridge run ./model-NVFP4 --quantization-config.linear.activation bf16 --prompt 'Once upon a time'\n"
                "  mpirun -n 2 quantbridge run ./model --tp 2 --prompt 'Once upon a time'",
    .rank = 5, .setup = setup, .together = true};
// clang-format on

}  // namespace qb::cli
