// check: whether a checkpoint is what it says it is.
#include <fmt/format.h>

#include "base/json.h"
#include "bridge/check.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/report.h"
#include "host/host.h"

namespace qb::cli {
namespace {

struct Options {
  std::string path, explain;
  bool deep = false, strict = false;
  int threads = 0;
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

int run(const Options& o) {
  if (!o.explain.empty()) return explain(o);
  if (o.path.empty()) {
    print_err("quantbridge check: PATH is required\n");
    return exit_usage;
  }
  Result<Session> session = open_session(o.path);
  if (!session) return fail("check", session.error(), o.common);
  Context context;
  context.limits.threads = o.threads > 0 ? o.threads : host::processors();
  context.isa = host::detect_isa();
  context.progress = progress_bar("check", o.common);
  context.cancelled = &interrupted();
  Result<CheckReport> report = check_session(*session, o.deep, context);
  if (!report) return fail("check", report.error(), o.common, session->diag.all());
  if (o.strict)
    for (Problem& p : session->diag.all())
      if (p.severity == Severity::warning) p.severity = Severity::error;
  const bool ok = session->diag.ok();
  ProblemClass worst{};
  const bool any = session->diag.worst(worst);
  if (o.common.json) {
    Json j = envelope("check", ok, session->diag.all());
    j["path"] = session->path.string();
    j["class"] = any ? Json(to_string(worst)) : Json(nullptr);
    j["checked"] = {{"tensors", report->tensors}, {"modules", report->modules}, {"bytes_read", report->bytes_read}};
    print_json(j);
  } else {
    print_problems(session->diag.all());
    const std::string what = o.deep ? fmt::format("{} read", size_text(report->bytes_read)) : "headers and scalar scales";
    print_out(
        fmt::format("{}: {} ({} tensors, {} modules, {})\n", session->path.string(), any ? to_string(worst) : "good", report->tensors, report->modules, what));
  }
  return ok ? exit_done : exit_problems;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("PATH", o->path, "checkpoint directory");
  app.add_flag("--deep", o->deep, "also read all data: block scales, codes, checksums");
  app.add_flag("--strict", o->strict, "warnings are errors");
  app.add_option("--explain", o->explain, "say what a problem CODE means")->type_name("CODE");
  app.add_option("--threads", o->threads, "threads (default: all processors)")->check(CLI::Range(1, 1024));
  app.add_flag("--json", o->common.json, "one JSON object on stdout");
  app.add_flag("--quiet", o->common.quiet, "no progress");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(check) = {
    .name = "check", .summary = "Verify a checkpoint: every tensor explained, every scale sane",
    .examples = "Examples:\n  quantbridge check ./Llama-3.1-8B-FP8\n  quantbridge check --deep --json ./model\n  quantbridge check --explain kv-scale-name",
    .rank = 2, .setup = setup};
// clang-format on

}  // namespace qb::cli
