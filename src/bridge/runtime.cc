#include "bridge/runtime.h"

#include <fmt/format.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <fstream>
#include <sstream>

#include "base/json.h"
#include "exec/execute.h"
#include "host/host.h"
#include "pass/repair.h"

namespace qb {
namespace {

constexpr int64_t default_context = 4096;

// A token id or a list of them.
void add_ids(const Json* v, std::vector<int32_t>& out) {
  if (v == nullptr) return;
  if (v->is_number_integer()) out.push_back(v->get<int32_t>());
  if (v->is_array())
    for (const Json& e : *v)
      if (e.is_number_integer()) out.push_back(e.get<int32_t>());
}

std::vector<int32_t> stop_tokens(const Package& p) {
  std::vector<int32_t> ids;
  if (const Json* g = p.document("generation_config.json"); g != nullptr) add_ids(find(*g, "eos_token_id"), ids);
  if (ids.empty()) add_ids(find(*p.document("config.json"), "eos_token_id"), ids);
  return ids;
}

// A special token's text in tokenizer_config.json: a string, or an object with its content.
std::string token_text(const Json& config, const char* key) {
  const Json* v = find(config, key);
  if (v == nullptr) return {};
  return v->is_string() ? v->get<std::string>() : std::string(string_at(*v, "content"));
}

// The template to use: a file of its own, or the string (or the entry named default) of tokenizer_config.json.
Result<std::string> template_source(const Session& s, const Json& config) {
  if (Result<std::string> file = read_file(s.path / "chat_template.jinja"); file) return file;
  const Json* t = find(config, "chat_template");
  if (t != nullptr && t->is_string()) return t->get<std::string>();
  if (t != nullptr && t->is_array())
    for (const Json& e : *t)
      if (string_at(e, "name") == "default") return std::string(string_at(e, "template"));
  return Error{
      Errc::bad_input,
      fmt::format("{} has no chat template: neither chat_template.jinja nor tokenizer_config.json has one; use --prompt without --chat", s.path.string())};
}

bool stops(const Problem& p) {
  return p.severity == Severity::error && !carried_over(p);
}

std::string problems_text(const Diagnostics& diag) {
  const auto first = std::find_if(diag.all().begin(), diag.all().end(), stops);
  const auto count = std::count_if(diag.all().begin(), diag.all().end(), stops);
  if (first == diag.all().end()) return "the checkpoint cannot be run";
  const std::string place = escape(!first->tensor.empty() ? first->tensor : !first->module.empty() ? first->module : first->file);
  return fmt::format("the checkpoint cannot be run: {} {}: found {}, expected {}{}", first->code, place, escape(first->found), escape(first->expected),
                     count > 1 ? fmt::format(" (and {} more)", count - 1) : "");
}

bool runnable(const Session& s) {
  return s.readable && std::none_of(s.diag.all().begin(), s.diag.all().end(), [](const Problem& p) { return stops(p) && p.repair != Repair::exact; });
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{Errc::not_found, fmt::format("{} is missing or unreadable", escape(path.string()))};
  std::ostringstream out;
  out << in.rdbuf();
  return std::move(out).str();
}

Error refusal(Error error, const oracle::Policy& policy) {
  if (error.code == Errc::invalid_argument && policy.deny.empty()) error.code = Errc::bad_input;
  return error;
}

Result<void> make_runnable(Session& s, Context& context) {
  if (!runnable(s)) return Error{Errc::bad_input, problems_text(s.diag)};
  if (const arch::Topology& t = s.checkpoint.topology; t.ranks.count() > 1)
    return Error{Errc::bad_input, fmt::format("{} is the part of rank {} of {}: alone it computes nothing", s.path.string(), t.rank, t.ranks.count())};
  StreamSurveyor surveyor(*s.package.source, context);
  std::vector<pass::Repaired> repaired;
  return pass::repair(s.checkpoint, {surveyor, Repair::exact}, s.diag, repaired);
}

Result<std::unique_ptr<Runtime>> Runtime::load(Session opened, const RuntimeOptions& options, Context& context) {
  auto r = std::make_unique<Runtime>();
  if (options.ranks.count() > 1) r->ranks.emplace(*options.world, options.ranks);  // before anything can fail on one rank alone
  QB_TRY(make_runnable(opened, context));
  if (r->ranks) QB_TRY(r->ranks->take_part(opened.checkpoint, context, *opened.package.source));
  r->session = std::move(opened);
  r->pool = std::make_unique<host::ThreadPool>(options.threads);
  Result<std::unique_ptr<model::Model>> loaded = model::load({.package = r->session.package,
                                                              .checkpoint = r->session.checkpoint,
                                                              .arena = r->weights,
                                                              .pool = *r->pool,
                                                              .context = context,
                                                              .options = options.model,
                                                              .team = r->ranks ? &r->ranks->team() : nullptr});
  if (!loaded) return refusal(loaded.error(), options.model.linear.policy);
  r->model = std::move(*loaded);
#if defined(__GLIBC__)
  ::malloc_trim(0);  // the loading threads' buffers: freed, but kept by the allocator
#endif
  r->context_tokens = options.context > 0 ? options.context : std::min(r->model->max_positions(), default_context);
  QB_ASSIGN(r->cache, model::KvCache::make(r->model->kv_shape(), r->model->kv_elem(), engine::blocks_for(r->context_tokens), r->cache_memory));
  r->stop_ids = stop_tokens(r->session.package);
  return r;
}

uint64_t Runtime::kv_bytes(int64_t tokens) const {
  return cache->bytes() / static_cast<uint64_t>(cache->blocks()) * static_cast<uint64_t>(engine::blocks_for(tokens));
}

Result<text::Tokenizer> load_tokenizer(const Session& s) {
  Result<std::string> json = read_file(s.path / "tokenizer.json");
  if (!json && read_file(s.path / "tokenizer.model"))
    return Error{Errc::bad_input, fmt::format("{0} has tokenizer.model, which is not read, and no tokenizer.json: transformers writes one with "
                                              "AutoTokenizer.from_pretrained('{0}').save_pretrained('{0}'); or give token ids with --ids",
                                              s.path.string())};
  if (!json) return Error{Errc::bad_input, fmt::format("{} has no tokenizer.json; give token ids with --ids", s.path.string())};
  Result<text::Tokenizer> tokenizer = text::Tokenizer::load(*json, host::compile_regex);
  if (!tokenizer) return Error{Errc::bad_input, tokenizer.error().what};
  return tokenizer;
}

Result<std::string> chat_prompt(const Session& s, std::span<const ChatMessage> messages) {
  Json config = Json::object();
  if (Result<std::string> text = read_file(s.path / "tokenizer_config.json"); text) {
    JsonError error;
    if (!parse_json(*text, config, error)) return Error{Errc::bad_input, fmt::format("tokenizer_config.json: {}", error.what)};
  }
  QB_ASSIGN(const std::string source, template_source(s, config));
  const Result<text::ChatTemplate> chat = text::ChatTemplate::parse(source);
  if (!chat) return Error{Errc::bad_input, chat.error().what};
  Json list = Json::array();
  for (const ChatMessage& m : messages) list.push_back({{"role", m.role}, {"content", m.content}});
  const Json variables = {{"messages", std::move(list)},
                          {"add_generation_prompt", true},
                          {"bos_token", token_text(config, "bos_token")},
                          {"eos_token", token_text(config, "eos_token")}};
  Result<std::string> prompt = chat->render(variables);
  if (!prompt) return Error{Errc::bad_input, prompt.error().what};
  return prompt;
}

}  // namespace qb
