// check: whether a checkpoint is what it says it is.
#include <fmt/format.h>

#include "arch/parallel.h"
#include "base/json.h"
#include "bridge/advise.h"
#include "bridge/check.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/ranks.h"
#include "cli/report.h"
#include "host/host.h"

namespace qb::cli {
namespace {

using target::to_string;

struct Options {
  std::string path, explain, engine;
  bool deep = false, strict = false;
  int threads = 0;
  arch::Ranks ranks;
  CommonOptions common;
};

int explain(const Options& o) {
  const ProblemKind* kind = find_problem_kind(o.explain);
  if (kind == nullptr) {
    print_err(fmt::format("quantbridge check: unknown problem code '{}'; docs/problems.md lists them\n", escape(o.explain)));
    return exit_usage;
  }
  print_out(fmt::format("{} ({}, convert repairs: {})\n  what it means       {}\n  what engines do     {}\n  what to do          {}\n", kind->code,
                        to_string(kind->cls), to_string(kind->repair), kind->meaning, kind->engines, kind->action));
  return exit_done;
}

Json to_json(const target::Finding& f) {
  const auto text = [](std::string_view s) { return s.empty() ? Json(nullptr) : Json(escape(s)); };
  Json j = Json::object();
  j["modules"] = Json::array();
  for (const std::string& path : f.modules) j["modules"].push_back(escape(path));
  j["scheme"] = text(f.scheme);
  j["problem"] = text(f.problem);
  j["outcome"] = to_string(f.outcome);
  j["path"] = text(f.path);
  j["why"] = text(f.why);
  j["source"] = text(f.source.at);
  j["version"] = text(f.source.version);
  j["action"] = text(f.action);
  return j;
}

Json to_json(const target::Target& t, std::span<const target::Finding> findings) {
  Json j = {{"engine", t.name}, {"version", t.version}, {"outcome", to_string(target::summary(findings))}, {"findings", Json::array()}};
  for (const target::Finding& f : findings) j["findings"].push_back(to_json(f));
  return j;
}

// At most two modules by name.
std::string modules_text(const std::vector<std::string>& modules) {
  if (modules.empty()) return {};
  std::string names = escape(modules.front());
  if (modules.size() > 1) names += (modules.size() > 2 ? ", ..., " : ", ") + escape(modules.back());
  return fmt::format("  {} module{}: {}", modules.size(), modules.size() == 1 ? "" : "s", names);
}

std::string engine_text(const target::Target& t, std::span<const target::Finding> findings) {
  static constexpr std::string_view words[] = {"refuses it", "loads it and is wrong", "not known", "loads it right"};
  std::string out = fmt::format("for {}: {} ({})\n", t.title, words[static_cast<size_t>(target::summary(findings))], t.version);
  for (const target::Finding& f : findings) {
    out += fmt::format("  {:<8} {}{}\n", to_string(f.outcome), f.problem.empty() ? f.scheme : f.problem, modules_text(f.modules));
    const auto line = [&](std::string_view key, std::string_view value) {
      if (!value.empty()) out += fmt::format("    {:<7}{}\n", key, escape(value));
    };
    line("by", f.path);
    line("why", f.why);
    line("do", f.action);
    if (!f.source.at.empty()) line("see", fmt::format("{} ({})", f.source.at, f.source.version));
  }
  return out;
}

int run(const Options& o) {
  if (!o.explain.empty()) return explain(o);
  if (!arch::is_sound(o.ranks)) {
    print_err("quantbridge check: of --tp and --ep one is a multiple of the other\n");
    return exit_usage;
  }
  if (o.path.empty()) {
    print_err("quantbridge check: PATH is required\n");
    return exit_usage;
  }
  const target::Target* engine = o.engine.empty() ? nullptr : target::find_target(o.engine);
  if (engine == nullptr && !o.engine.empty()) {
    print_err(fmt::format("quantbridge check: unknown engine '{}'; there are {}\n", escape(o.engine), target::target_names()));
    return exit_usage;
  }
  Result<Session> session = agree(ranks(), open_session(o.path));
  if (!session) return fail("check", session.error(), o.common);
  Context context;
  context.limits.threads = o.threads > 0 ? o.threads : host::processors();
  context.isa = host::detect_isa();
  context.progress = progress_bar("check", o.common);
  context.cancelled = &interrupted();
  Result<CheckReport> report = check_session(*session, o.deep, context, {ranks(), [](const Error& e) { end_ranks("check", e); }});
  if (!report) return fail("check", report.error(), o.common, session->diag.all());
  check_cuts(*session, o.ranks);
  if (o.strict)
    for (Problem& p : session->diag.all())
      if (p.severity == Severity::warning) p.severity = Severity::error;
  std::vector<target::Finding> findings;
  if (engine != nullptr) findings = advise(*session, *engine);
  const bool unfit = o.strict && !findings.empty() && findings.front().outcome <= target::Outcome::wrong;
  bool ok = session->diag.ok() && !unfit;
  if (ranks() != nullptr) ranks()->broadcast(std::as_writable_bytes(std::span(&ok, 1)));  // some questions only the first has asked
  ProblemClass worst{};
  const bool any = session->diag.worst(worst);
  if (o.common.json) {
    Json j = envelope("check", ok, session->diag.all());
    j["path"] = session->path.string();
    j["class"] = any ? Json(to_string(worst)) : Json(nullptr);
    j["checked"] = {{"tensors", report->tensors}, {"modules", report->modules}, {"bytes_read", report->bytes_read}};
    if (engine != nullptr) j["for"] = to_json(*engine, findings);
    print_json(j);
  } else {
    print_problems(session->diag.all());
    const std::string what = o.deep ? fmt::format("{} read", size_text(report->bytes_read)) : "headers and scalar scales";
    print_out(
        fmt::format("{}: {} ({} tensors, {} modules, {})\n", session->path.string(), any ? to_string(worst) : "good", report->tensors, report->modules, what));
    if (engine != nullptr) print_out(engine_text(*engine, findings));
  }
  return ok ? exit_done : exit_problems;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("PATH", o->path, "checkpoint directory");
  app.add_flag("--deep", o->deep, "also read all data: block scales, codes, checksums");
  app.add_flag("--strict", o->strict, "warnings are errors, and so is what the engine refuses or gets wrong");
  app.add_option("--for", o->engine, "also say what an inference engine does with it: " + target::target_names())->type_name("ENGINE");
  app.add_option("--explain", o->explain, "say what a problem CODE means")->type_name("CODE");
  app.add_option("--tp", o->ranks.tp, "also say what breaks when N tensor-parallel ranks share the model")->check(CLI::Range(1, 1024))->type_name("N");
  app.add_option("--ep", o->ranks.ep, "the same of N expert-parallel ranks")->check(CLI::Range(1, 1024))->type_name("N");
  app.add_option("--threads", o->threads, "threads (default: all processors)")->check(CLI::Range(1, 1024));
  app.add_flag("--json", o->common.json, "one JSON object on stdout");
  app.add_flag("--quiet", o->common.quiet, "no progress");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(check) = {
    .name = "check", .summary = "Verify a checkpoint: every tensor explained, every scale sane",
    .examples = "Examples:\n  quantbridge check ./Llama-3.1-8B-FP8\n  quantbridge check --deep --json ./model\n  quantbridge check ./model --for vllm\n  quantbridge check --explain kv-scale-name",
    .rank = 2, .setup = setup, .together = true};
// clang-format on

}  // namespace qb::cli
