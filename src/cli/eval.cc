// eval: perplexity, comparison with another checkpoint, logits to a file.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/json.h"
#include "bridge/rotate.h"
#include "bridge/samples.h"
#include "cli/command.h"
#include "cli/layer_table.h"
#include "cli/logits_file.h"
#include "cli/ranks.h"
#include "cli/runtime_options.h"
#include "dialect/history.h"
#include "engine/metrics.h"

namespace qb::cli {
namespace {

struct Options : ModelOptions {
  std::string text, against, logits, ids;
  int64_t ctx = 512;
  bool layers = false;
};

Result<std::vector<std::vector<int32_t>>> text_chunks(const Options& o, const Session& s) {
  QB_ASSIGN(const std::string text, read_file(o.text));
  QB_ASSIGN(const text::Tokenizer tokenizer, load_tokenizer(s));
  QB_ASSIGN(const std::vector<int32_t> ids, tokenizer.encode(text, false));
  auto chunks = engine::chunks_of(ids, static_cast<size_t>(o.ctx));
  if (chunks.empty()) return Error{Errc::invalid_argument, fmt::format("{} has {} tokens, fewer than one chunk of --ctx {}", o.text, ids.size(), o.ctx)};
  return chunks;
}

// Opened and settled; nothing after an error, which has been reported.
std::optional<Session> ready(const ModelOptions& o, const std::string& path, Context& context, int& code) {
  std::optional<Session> s = open_model("eval", o, path, context, code);
  if (!s) return s;
  if (const Result<void> fit = make_runnable(*s, context); !fit) {
    code = fail("eval", fit.error(), o.common, s->diag.all());
    return std::nullopt;
  }
  if (!o.common.json && !o.common.quiet) print_problems(s->diag.all());
  return s;
}

ModelOptions without_quantization(const Options& o) {
  ModelOptions as_it_is = o;
  as_it_is.quantization = {};
  return as_it_is;
}

bool says_rotated(const Session& s) {
  const std::vector<HistoryStep> history = read_history(s.package);
  return std::any_of(history.begin(), history.end(), [](const HistoryStep& step) {
    return std::any_of(step.changes.begin(), step.changes.end(), [](const std::string& text) { return text.starts_with(rotated_sentence); });
  });
}

int layers(const Options& o) {
  if (o.text.empty() || o.against.empty() || !o.logits.empty() || ranks() != nullptr) {
    print_err("quantbridge eval: --layers goes with --text FILE and --against PATH2, in one process\n");
    return exit_usage;
  }
  Context context, other_context;
  int code = exit_done;
  const std::optional<Session> found = ready(o, o.path, context, code);
  const std::optional<Session> truth = found ? ready(without_quantization(o), o.against, other_context, code) : std::nullopt;
  if (!truth) return code;
  if (says_rotated(*found) != says_rotated(*truth))
    print_err("note: by its history one of the two is a rotated model: its hidden states and values are in another basis, and no error is meant by that\n");
  const Result<std::vector<std::vector<int32_t>>> chunks = text_chunks(o, *found);
  if (!chunks) return fail("eval", chunks.error(), o.common);
  const Result<RuntimeOptions> with = runtime_options(o);
  if (!with) return fail("eval", with.error(), o.common);
  host::ThreadPool pool(with->threads);
  const auto tokens_text = [](uint64_t count) { return fmt::format("{} tokens in layers", count); };
  const Result<std::vector<LayerError>> errors =
      layer_errors(*found, *truth, *chunks, context, {.model = with->model, .pool = pool, .progress = progress_bar("eval", o.common, tokens_text)});
  if (!errors) return fail("eval", errors.error(), o.common);
  const size_t tokens = chunks->size() * chunks->front().size();
  if (o.common.json) {
    Json j = envelope("eval", true, found->diag.all());
    j["tokens"] = tokens;
    j["layers"] = to_json(*errors);
    print_json(j);
  } else {
    print_out(fmt::format("relative errors of hidden states and outputs against {}, over {} tokens in {} chunks of {}\n{}", o.against, tokens, chunks->size(),
                          o.ctx, layer_table(*errors)));
  }
  return exit_done;
}

int run(const Options& o) {
  if (o.layers) return layers(o);
  if (o.text.empty() == o.logits.empty() || o.logits.empty() != o.ids.empty()) {
    print_err("quantbridge eval: give --text FILE, or --logits OUT with --ids IDS\n");
    return exit_usage;
  }
  Context context, other_context;
  int code = exit_done;
  std::vector<std::vector<int32_t>> chunks;
  int64_t longest = o.ctx;
  if (!o.ids.empty()) {
    Result<std::vector<std::vector<int32_t>>> ids = agree(ranks(), read_input_ids(o.ids));
    if (!ids) return fail("eval", ids.error(), o.common);
    chunks = std::move(*ids);
    longest = static_cast<int64_t>(chunks.front().size());
  }
  std::unique_ptr<Runtime> r = load_model("eval", o, o.path, longest, context, code);
  if (r == nullptr) return code;
  if (!o.text.empty()) {
    Result<std::vector<std::vector<int32_t>>> cut = agree(ranks(), text_chunks(o, r->session));
    if (!cut) return fail("eval", cut.error(), o.common);
    chunks = std::move(*cut);
  }
  std::unique_ptr<Runtime> other;
  if (!o.against.empty()) {
    other = load_model("eval", without_quantization(o), o.against, longest, other_context, code);
    if (other == nullptr) return code;
    if (other->model->vocab() != r->model->vocab())
      return fail("eval",
                  {Errc::bad_input, fmt::format("{} has a vocabulary of {}, {} one of {}", o.path, r->model->vocab(), o.against, other->model->vocab())},
                  o.common);
  }
  const auto vocab = static_cast<size_t>(r->model->vocab());
  LogitsFile file;
  const bool writes = !o.logits.empty() && is_speaker();
  const Result<void> opened = agree(ranks(), writes ? file.open(o.logits, chunks.size(), chunks.front().size(), vocab) : Result<void>());
  if (!opened) return fail("eval", opened.error(), o.common);

  engine::Perplexity perplexity;
  engine::Comparison comparison;
  const auto bar = progress_bar("eval", o.common);
  std::optional<Error> failed;
  for (size_t i = 0; i < chunks.size() && !failed; ++i) {
    const std::span<const std::vector<int32_t>> one(&chunks[i], 1);
    const auto scored = engine::score(*r->model, *r->cache, one, [&](size_t, std::span<const float> logits) {
      if (!o.text.empty()) perplexity.add(logits, vocab, chunks[i]);
      if (writes)
        if (Result<void> w = file.write(logits); !w) failed = w.error();
      if (other) {
        const auto second = engine::score(*other->model, *other->cache, one, [&](size_t, std::span<const float> theirs) {
          comparison.add(logits, theirs, vocab);
          return true;
        });
        if (!second) failed = second.error();
      }
      return !failed;
    });
    if (!scored && !failed) failed = scored.error();
    if (context.stop()) failed = Error{Errc::cancelled, "interrupted"};
    if (failed && ranks() != nullptr) end_ranks("eval", *failed);  // the others are at work, and cannot be told
    if (bar) bar({i + 1, chunks.size()});
  }
  if (!failed && writes)
    if (Result<void> closed = file.finish(); !closed) failed = closed.error();
  if (failed) return fail("eval", *failed, o.common);

  int64_t tokens = 0;
  for (const auto& c : chunks) tokens += static_cast<int64_t>(c.size());
  const double kl = comparison.rows > 0 ? comparison.kl / static_cast<double>(comparison.rows) : 0;
  const double top1 = comparison.rows > 0 ? static_cast<double>(comparison.same) / static_cast<double>(comparison.rows) : 0;
  if (o.common.json) {
    Json j = envelope("eval", true, r->session.diag.all());
    j["tokens"] = tokens;
    j["perplexity"] = o.text.empty() ? Json(nullptr) : Json(perplexity.value());
    j["against"] = other ? Json{{"kl", kl}, {"top1", top1}, {"max_abs", comparison.max_abs}} : Json(nullptr);
    print_json(j);
    return exit_done;
  }
  if (!o.text.empty()) print_out(fmt::format("perplexity {:.4f} over {} tokens in {} chunks of {}\n", perplexity.value(), tokens, chunks.size(), o.ctx));
  if (other)
    print_out(fmt::format("against {}: mean KL {:.6f}, same likeliest token {:.2f} %, largest logit difference {:.4g}\n", o.against, kl, top1 * 100,
                          comparison.max_abs));
  if (!o.logits.empty()) print_out(o.logits + "\n");
  return exit_done;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, *o);
  add_rank_options(app, *o);
  app.add_option("--text", o->text, "text file: perplexity of its tokens, in chunks that stand alone; the last short one is dropped")->type_name("FILE");
  app.add_option("--ctx", o->ctx, "tokens of a chunk")->check(CLI::Range(2, 1 << 20))->capture_default_str();
  app.add_option("--against", o->against, "another checkpoint, taken as the truth: mean KL, agreement, largest difference")->type_name("PATH2");
  app.add_flag("--layers", o->layers,
               "of each layer and each of its linears the relative error against PATH2, with its hidden states as inputs; one layer of each in memory");
  app.add_option("--logits", o->logits, "write float32 logits [b, t, vocab] to this safetensors file")->type_name("OUT");
  app.add_option("--ids", o->ids, "safetensors file with input_ids [b, t]")->type_name("IDS");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(eval) = {
    .name = "eval", .summary = "Perplexity, distance to another checkpoint, logits",
    .examples = "Examples:\n  quantbridge eval ./model --text book.txt --ctx 512\n  quantbridge eval ./model-NVFP4 --text book.txt --against ./model-BF16\n"
                "  quantbridge eval ./model-BF16 --quantization nvfp4 --text book.txt --against ./model-BF16\n"
                "  quantbridge eval ./model-NVFP4 --text book.txt --against ./model-BF16 --layers\n"
                "  quantbridge eval ./model --logits out.safetensors --ids ids.safetensors --reference",
    .rank = 6, .setup = setup, .together = true};
// clang-format on

}  // namespace qb::cli
