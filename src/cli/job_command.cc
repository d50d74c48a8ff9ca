#include "cli/job_command.h"

#include <fmt/format.h>

#include <chrono>
#include <map>

#include "base/json.h"
#include "bridge/rotate.h"
#include "bridge/runtime.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/ranks.h"
#include "host/host.h"
#include "ir/shorthand.h"

namespace qb::cli {
namespace {

struct Outcome {
  std::vector<Problem> problems;
  Job job;
  JobReport report;
  double seconds = 0;
};

// Of weights that were quantized otherwise before: the largest of their matrices' relative errors.
std::optional<double> largest_error(const Export::SchemeChange& change, const JobReport& report) {
  std::optional<double> largest;
  for (const std::string& path : change.modules)
    if (const auto it = report.requantize_errors.find(path); it != report.requantize_errors.end()) largest = std::max(largest.value_or(0), it->second);
  return largest;
}

Json to_json(std::string_view command, const JobCommandOptions& o, const Session& s, const Outcome& r, bool ok) {
  Json j = envelope(command, ok, r.problems);
  j["in"] = o.in;
  j["out"] = o.out;
  j["from"] = s.dialect != nullptr ? Json(s.dialect->name) : Json(nullptr);
  j["to"] = o.to;
  if (!s.rotated.empty()) j["rotated"] = s.rotated;
  j["scheme_changes"] = Json::array();
  for (const auto& c : r.job.plan.scheme_changes) {
    j["scheme_changes"].push_back({{"modules", c.modules}, {"from", c.from}, {"to", c.to}, {"reason", c.reason}});
    if (const std::optional<double> error = largest_error(c, r.report)) j["scheme_changes"].back()["max_relative_error"] = *error;
  }
  j["forms"] = Json::array();
  for (const pass::Reformed& f : r.job.reformed) j["forms"].push_back({{"modules", f.modules}, {"into", f.into}, {"how", f.how}});
  j["repairs"] = Json::array();
  for (const pass::Repaired& d : r.job.repairs)
    j["repairs"].push_back({{"code", d.code},
                            {"modules", d.modules},
                            {"max_relative_error", d.max_relative_error ? Json(*d.max_relative_error) : Json(nullptr)},
                            {"how", escape(d.how)}});
  j["lost"] = Json::array();
  for (const auto& l : r.job.plan.lost) j["lost"].push_back({{"what", l.what}, {"why", l.why}});
  j["tensors"] = r.job.tensors;
  j["bytes_in"] = r.job.bytes_in;
  j["bytes_out"] = r.job.bytes_out;
  j["bytes_copied_unchanged"] = r.report.run.bytes_copied_unchanged;
  j["peak_anonymous_bytes"] = host::peak_anonymous();
  j["seconds"] = r.seconds;
  j["dry_run"] = o.dry_run;
  if (o.more != nullptr)
    for (const auto& [key, value] : o.more->items()) j[key] = value;
  return j;
}

std::string count_text(uint64_t count) {
  return fmt::format("{} tokens in layers", count);
}

void print_plan(const Job& job) {
  for (const PlannedFile& f : job.files) {
    print_out(fmt::format("file {} ({})\n", f.name, size_text(f.bytes)));
    for (const prog::Program& p : f.programs) print_out(prog::to_text(p) + "\n");
  }
  for (const auto& [name, document] : job.plan.documents) print_out(fmt::format("document {}\n{}\n", name, dump_json(*document)));
}

void print_outcome(const JobCommandOptions& o, const Session& s, const Outcome& r) {
  if (!s.rotated.empty()) print_err(fmt::format("note: {}: {}\n", rotated_sentence, s.rotated));
  for (const auto& c : r.job.plan.scheme_changes) {
    const std::optional<double> error = largest_error(c, r.report);
    print_err(fmt::format("note: {} modules become {} instead of {}: {}{}\n", c.modules.size(), c.to, c.from, c.reason,
                          error ? fmt::format("; a matrix differs by up to {:.2g} of its norm from what it was", *error) : ""));
  }
  for (const pass::Reformed& f : r.job.reformed) print_err(fmt::format("note: {} modules are written as {}: {}\n", f.modules.size(), f.into, f.how));
  for (const pass::Repaired& d : r.job.repairs) {
    const std::string loss = !d.max_relative_error          ? "; what it costs is not known"
                             : *d.max_relative_error == 0.0 ? ""
                                                            : fmt::format("; off by up to {:.2g} of a number", *d.max_relative_error);
    print_err(fmt::format("repaired: {} ({}): {}{}\n", d.code, d.modules.size() == 1 ? escape(d.modules[0]) : fmt::format("{} places", d.modules.size()),
                          escape(d.how), loss));
  }
  for (const auto& l : r.job.plan.lost) print_err(fmt::format("lost: {}: {}\n", l.what, l.why));
  if (!s.package.foreign_files.empty()) print_err(fmt::format("not copied: {} other weight files\n", s.package.foreign_files.size()));
  if (o.dry_run || o.common.quiet) return;
  const char* start = r.report.start == OutputDirectory::Start::resumed     ? ", resumed"
                      : r.report.start == OutputDirectory::Start::restarted ? ", restarted (an unfinished output of another job was thrown away)"
                                                                            : "";
  print_err(fmt::format("{} tensors, {} -> {} ({} unchanged) in {:.2f} s, peak {} of anonymous memory{}\n", r.job.tensors, size_text(r.job.bytes_in),
                        size_text(r.job.bytes_out), size_text(r.report.run.bytes_copied_unchanged), r.seconds, size_text(host::peak_anonymous()), start));
  print_out(o.out + "\n");
}

Result<bool> measure(const JobCommandOptions& o, Session& session, JobOptions& job, Calibration& calibration, Context& context, Diagnostics& diag,
                     const Together& together) {
  calibration.progress = progress_bar("calibrate", o.common, count_text);
  if (calibration.out.empty()) calibration.out = "quantbridge-dry-run";
  // Before hours are spent.
  std::error_code ec;
  if (!o.dry_run && !o.force && std::filesystem::exists(o.out, ec)) return Error{Errc::exists, fmt::format("{} exists; --force replaces it", escape(o.out))};
  if (calibration.file.empty() && !o.common.quiet)
    print_err("note: no --calibrate: what is needed is measured on the text that comes with the program; text like that of the model's use is better\n");
  Result<bool> measured = calibrate(session, job, calibration, context, diag, together);
  if (!measured && measured.error().code == Errc::cancelled && calibration.store) calibration.store->remove();
  if (calibration.store && calibration.store->resumed() && !o.common.quiet) print_err("note: an interrupted calibration went on where it was\n");
  if (measured && *measured) diag = {};  // what the plan says is said then
  return measured;
}

}  // namespace

void add_job_options(CLI::App& app, JobCommandOptions& o) {
  app.add_option("IN", o.in, "checkpoint directory");
  app.add_option("OUT", o.out, "directory to write; must not exist without --force");
  const auto forms = [&app](const char* option, pass::Form& form, const char* joined, const char* what) {
    app.add_option(option, form, what)
        ->transform(CLI::CheckedTransformer(pass::form_words(joined)).description(""))
        ->type_name(fmt::format("as-is|separate|{}", joined));
  };
  forms("--projections", o.forms.projections, "fused", "q, k, v and gate, up: as the checkpoint has them, each by itself, or as one matrix");
  forms("--experts", o.forms.experts, "stacked",
        "the experts of a layer: as the checkpoint has them (or by themselves, where DIALECT takes nothing else), each by "
        "itself, or in one tensor");
  app.add_flag("--dry-run", o.dry_run, "print the plan, write nothing");
  app.add_option("--memory-budget", o.budget, "bytes for buffers")->capture_default_str()->type_name("SIZE");
  app.add_option("--threads", o.threads, "threads (default: all processors)")->check(CLI::Range(1, 1024));
  app.add_option("--max-shard-size", o.max_shard, "bytes of tensors in one file")->capture_default_str()->type_name("SIZE");
  app.add_flag("--force", o.force, "replace OUT, atomically");
  app.add_flag("--no-checksums", o.no_checksums, "leave out the per-tensor XXH3 checksums");
  app.add_flag("--json", o.common.json, "one JSON object on stdout");
  app.add_flag("--quiet", o.common.quiet, "no progress, no summary");
}

bool parse_job_options(std::string_view command, const JobCommandOptions& o, JobOptions& job, Limits& limits) {
  const auto usage = [&](const std::string& what) {
    print_err(fmt::format("quantbridge {}: {}\n", command, what));
    return false;
  };
  if (o.in.empty() || (o.out.empty() && !o.dry_run)) return usage("IN and OUT are required");
  if (!parse_size(o.budget, limits.memory_budget)) return usage(fmt::format("--memory-budget '{}' is no size; write 512MiB or 2GB", o.budget));
  if (!parse_size(o.max_shard, job.max_shard)) return usage(fmt::format("--max-shard-size '{}' is no size; write 5GB", o.max_shard));
  const Dialect* dialect = find_dialect(o.to);
  if (dialect == nullptr || dialect->write == nullptr) {
    std::vector<std::string_view> names;
    for (const Dialect* d : dialects())
      if (d->write != nullptr) names.push_back(d->name);
    return usage(fmt::format("unknown dialect '{}'; known: {}", o.to, ir::near_names(o.to, names)));
  }
  job.to = o.to;
  job.forms = o.forms;
  job.checksums = !o.no_checksums;
  limits.threads = o.threads > 0 ? o.threads : host::processors();
  return true;
}

int run_job(std::string_view command, const JobCommandOptions& o, JobOptions& job, Limits limits, Calibration* calibration) {
  const auto begin = std::chrono::steady_clock::now();
  Result<Session> session = agree(ranks(), open_session(o.in));
  if (!session) return fail(command, session.error(), o.common);
  Context context;
  context.limits = limits;
  context.isa = host::detect_isa();
  context.cancelled = &interrupted();
  context.progress = progress_bar(std::string(command), o.common);
  if (job.quantize) {
    // What is refused stands among the session's problems, which planning passes on.
    if (const Result<bool> rotated = agree(ranks(), rotate(*session, job.quantize->config.rotation(), context)); !rotated)
      return fail(command, rotated.error(), o.common);
    limits = context.limits;
  }
  Outcome r;
  Diagnostics diag;
  const Together together{ranks(), [command](const Error& e) { end_ranks(command, e); }};
  const auto plan = [&] {
    r.job = {};
    context.limits = limits;  // planning takes what making weights anew needs
    return plan_job(*session, job, context, r.job, diag);
  };
  const bool given = calibration != nullptr && (!calibration->file.empty() || !calibration->observer.empty());
  bool planned = !given && plan();
  // Where nothing but data is missing, our own text is there for whoever has a tokenizer.
  const bool own = !planned && !given && calibration != nullptr && diag.has("calibration-needed") && load_tokenizer(*session);
  if (own) diag = {};
  if (given || own) {
    const Result<bool> measured = measure(o, *session, job, *calibration, context, diag, together);
    if (!measured) return fail(command, measured.error(), o.common, diag.all());
    planned = *measured && plan();
  }
  if (const Result<void> same = agree(ranks(), planned ? Result<void>() : Result<void>(Error{Errc::bad_input, "the job cannot be planned"})); planned && !same)
    return fail(command, same.error(), o.common);
  r.problems.assign(diag.all().begin(), diag.all().end());
  if (!planned) {
    if (o.common.json)
      print_json(to_json(command, o, *session, r, false));
    else
      print_problems(r.problems);
    return exit_problems;
  }
  if (o.dry_run) {
    if (calibration != nullptr && calibration->store) calibration->store->remove();
    if (o.common.json)
      print_json(to_json(command, o, *session, r, true));
    else
      print_plan(r.job);
  } else {
    Result<JobReport> report = write_job(*session, r.job, o.out, o.force, job.checksums, context, together);
    if (calibration != nullptr && calibration->store && (report || report.error().code == Errc::cancelled)) calibration->store->remove();
    if (!report) return fail(command, report.error(), o.common, r.problems);
    r.report = *report;
    r.problems.insert(r.problems.end(), r.report.problems.begin(), r.report.problems.end());
    r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (o.common.json) print_json(to_json(command, o, *session, r, true));
  }
  if (!o.common.json) {
    print_problems(r.problems);
    print_outcome(o, *session, r);
  }
  return exit_done;
}

}  // namespace qb::cli
