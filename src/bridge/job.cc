#include "bridge/job.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <tuple>

#include "base/json.h"
#include "bridge/alternatives.h"
#include "bridge/record.h"
#include "exec/execute.h"
#include "exec/xxh3.h"
#include "io/directory.h"
#include "pass/fold.h"
#include "pass/leave_out.h"
#include "pass/settle.h"
#include "pass/shard.h"
#include "quantbridge/version.h"

namespace qb {
namespace {

// Wide elements first keeps every tensor aligned to its element; within a width, the order of the source keeps reads sequential.
std::tuple<int, FileId, uint64_t> key_of(const prog::Program& p) {
  int width = 0;
  for (const prog::Output& o : p.outputs) width = std::min(width, -bits(o.dtype));
  return p.inputs.empty() ? std::tuple(width, FileId{0}, uint64_t{0}) : std::tuple(width, p.inputs.front().file, p.inputs.front().offset);
}

// Problems that stop a conversion. Names, ranks and dtypes were put right on reading, and passes have made warnings of what they repaired.
bool usable(const Session& s, const JobOptions& options, Job& job, Diagnostics& diag) {
  std::map<std::string, std::set<std::string>> repaired;
  for (const Problem& p : diag.all()) {
    if (p.severity != Severity::error || p.repair != Repair::exact) continue;
    repaired[p.code].insert(!p.module.empty() ? p.module : !p.tensor.empty() ? p.tensor : p.file);
  }
  bool ok = s.readable;
  for (Problem& p : diag.all()) {
    if (p.severity != Severity::error) continue;
    if ((p.repair == Repair::exact && options.repair != Repair::none) || carried_over(p))
      p.severity = Severity::warning;
    else
      ok = false;
  }
  if (options.repair != Repair::none)
    for (const auto& [code, modules] : repaired) job.repairs.push_back({code, {modules.begin(), modules.end()}, 0.0, "read as what the tensors mean"});
  return ok;
}

}  // namespace

std::string state_of(const Session& s) {
  std::string out;
  for (const PackageFile& f : s.package.files) {
    struct stat st {};
    ::stat((s.path / f.name).c_str(), &st);
    out += fmt::format("{} {} {}.{}\n", f.name, f.size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  }
  return out;
}

namespace {

std::string fingerprint(const Session& s, const Job& job, bool checksums) {
  Xxh3 hash(Isa::generic);
  const auto add = [&](std::string_view text) { hash.add(std::as_bytes(std::span(text))); };
  add(checksums ? "checksums" : "plain");
  add(state_of(s));
  add(job.calibration);
  for (const PlannedFile& f : job.files) {
    add(f.name);
    for (const auto& [key, value] : f.metadata) add(fmt::format("{}={}\n", key, value));
    for (const prog::Program& p : f.programs) add(prog::to_text(p));
  }
  if (job.requantized.source != nullptr)
    for (const prog::Program& p : job.requantized.source->programs()) add(prog::to_text(p));
  for (const auto& [name, document] : job.plan.documents) add(fmt::format("{}\n{}", name, dump_json(*document)));
  return "quantbridge 1 " + xxh3_hex(hash.digest());
}

// Whether pre-scales are all that the target has no words for.
bool writes_without_prescales(const Dialect& target, ir::Checkpoint checkpoint, const WriteContext& context) {
  for (ir::Module& m : checkpoint.modules) {
    if (m.scheme) m.scheme->features.prescale = false;
    std::erase_if(m.parts, [](const ir::Stored& s) { return s.role == ir::Role::prescale; });
  }
  Export out;
  Diagnostics diag;
  return target.write(checkpoint, context, out, diag);
}

// What became of pre-scales for a target that has no word for them.
void note_folded(const std::vector<pass::Folded>& folded, Job& job) {
  std::map<std::string, std::vector<std::string>> by_scheme;
  pass::Repaired all{.code = "prescale-inexpressible", .modules = {}, .how = "what feeds these modules took their factors up"};
  for (const pass::Folded& f : folded) {
    std::vector<std::string>& modules = by_scheme[to_string(f.from)];
    modules.insert(modules.end(), f.modules.begin(), f.modules.end());
    all.modules.insert(all.modules.end(), f.modules.begin(), f.modules.end());
    all.max_relative_error = std::max(*all.max_relative_error, f.max_relative_error);
  }
  for (auto& [from, modules] : by_scheme) {
    ir::Scheme to = *ir::parse_scheme(from);
    to.features.prescale = false;
    job.plan.scheme_changes.push_back({std::move(modules), from, to_string(to), "pre-scales were folded into the norms and rows that feed these modules"});
  }
  job.repairs.push_back(std::move(all));
}

// What became of weights that were quantized otherwise.
void note_requantized(const ir::Checkpoint& checkpoint, Job& job) {
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> changes;
  size_t i = 0;  // both in the order of the modules
  for (const ir::Module& m : checkpoint.modules)
    if (i < job.requantized.weights.size() && job.requantized.weights[i].path == m.path && m.scheme)
      changes[{job.requantized.weights[i++].from, to_string(*m.scheme)}].push_back(m.path);
  for (auto& [schemes, modules] : changes) job.plan.scheme_changes.push_back({std::move(modules), schemes.first, schemes.second, "requantized"});
  if (job.requantized.lost_inputs) job.plan.lost.push_back({"static scales of activations", "they were measured for weights that are made anew"});
}

void mark_rank(const JobOptions& options, Export& plan) {
  for (auto& [name, document] : plan.documents)
    if (name == "config.json") (*document)[arch::shard_key] = {{"tp", options.ranks.tp}, {"ep", options.ranks.ep}, {"rank", options.rank}};
}

bool takes_transforms(const Dialect& target, const ir::Checkpoint& checkpoint, Diagnostics& diag) {
  for (const ir::Module& m : checkpoint.modules)
    if (!m.transforms.empty() && !target.transforms)
      diag.report("scheme-inexpressible", {.module = m.path},
                  fmt::format("{} with a transform of its {}", m.scheme ? to_string(*m.scheme) : "plain numbers",
                              m.transforms.front().of_outputs ? "outputs" : "inputs"),
                  "modules without transforms");
  return diag.ok();
}

void note_smaller(std::vector<pass::SmallerBlocks> smaller, const char* who, Job& job) {
  for (pass::SmallerBlocks& b : smaller)
    job.plan.scheme_changes.push_back({std::move(b.modules), to_string(b.from), to_string(b.to),
                                       fmt::format("{} cut through blocks: the scales of a block that is cut are repeated, and no value changes", who)});
}
constexpr const char* parts_cut = "parts of a matrix";

// The target's documents and programs. What it has no word for is folded away, and stacks that it has no place for are taken apart, where that can be done;
// otherwise problems name the dialects that have one.
bool write_plan(const Dialect& target, ir::Checkpoint checkpoint, const WriteContext& write, const JobOptions& options, Job& job, Diagnostics& diag) {
  const Export begun = job.plan;
  bool written = takes_transforms(target, checkpoint, diag) && target.write(checkpoint, write, job.plan, diag);
  if (!written && diag.has("scheme-inexpressible") && options.forms.experts == pass::Form::as_is) {
    std::vector<pass::Reformed> reformed;
    std::vector<pass::SmallerBlocks> smaller;
    Diagnostics again;
    job.plan = begun;
    if (write_apart(target, checkpoint, write, job.plan, reformed, smaller, again)) {
      written = true;
      diag = std::move(again);
      note_smaller(std::move(smaller), parts_cut, job);
      for (pass::Reformed& r : reformed) {
        r.how += fmt::format(": {} has no place for stacks", target.name);
        job.reformed.push_back(std::move(r));
      }
    }
  }
  if (!written && diag.has("scheme-inexpressible") && pass::has_prescales(checkpoint) && writes_without_prescales(target, checkpoint, write)) {
    std::vector<pass::Folded> folded;
    Diagnostics kept;
    if (const Result<void> done = pass::fold(checkpoint, {write.surveyor, options.repair}, kept, folded); !done) {
      diag.report("shard-unreadable", {}, done.error().what, "tensors that can be read");
      return false;
    }
    if (kept.ok()) {
      diag = {};
      job.plan = begun;
      written = target.write(checkpoint, write, job.plan, diag);
      if (written) note_folded(folded, job);
    }
    for (const Problem& p : kept.all()) diag.add(p);
  }
  if (!written) name_alternatives(checkpoint, target, write, diag);
  return written;
}

}  // namespace

arch::Joined taken_apart(const Session& s, const pass::Forms& forms) {
  const bool other_names = s.dialect->config != nullptr && forms.projections == pass::Form::as_is;
  return {.projections = other_names || forms.projections == pass::Form::separate, .experts = forms.experts == pass::Form::separate};
}

bool plan_job(const Session& s, const JobOptions& options, Context& context, Job& job, Diagnostics& diag) {
  for (const Problem& p : s.diag.all()) diag.add(p);
  const Dialect* target = find_dialect(options.to);
  ir::Checkpoint checkpoint = s.checkpoint;
  StreamSurveyor surveyor(*s.package.source, context);
  // Plain numbers share no scales: there is nothing to lose for their sake.
  const Repair allowed = options.to == "dense" ? std::min(options.repair, Repair::exact) : options.repair;
  const auto prepare = [&]() -> Result<void> {
    QB_TRY(pass::settle(checkpoint, surveyor, diag));
    return pass::repair(checkpoint, {surveyor, allowed}, diag, job.repairs);
  };
  if (s.readable)
    if (const Result<void> prepared = prepare(); !prepared) {
      diag.report("shard-unreadable", {}, prepared.error().what, "tensors that can be read");
      return false;
    }
  if (!usable(s, options, job, diag)) return false;
  if (options.quantize && options.quantize->config.rotation().any() && s.rotated.empty()) std::abort();  // whoever opened the session rotates it
  Diagnostics own;
  const auto fail = [&] {
    for (const Problem& p : own.all()) diag.add(p);
    return false;
  };
  if (pass::leave_out_calibration(checkpoint))
    job.plan.lost.push_back({"scales that were measured for weights which are stored unquantized", "what is written holds the weights alone"});
  for (pass::Densified& d : pass::leave_out_sparsity(checkpoint))
    if (target->name != "dense")
      job.plan.scheme_changes.push_back({std::move(d.modules), d.from, d.to, "no dialect stores sparse weights any more: the zeros are written out"});
  std::vector<pass::SmallerBlocks> parted;
  if (!pass::separate(checkpoint, taken_apart(s, options.forms), job.reformed, parted, own)) return fail();
  note_smaller(std::move(parted), parts_cut, job);
  std::vector<std::string> made;
  if (options.quantize) {
    const pass::Overlay* const overlay = options.quantize->overlay ? &*options.quantize->overlay : nullptr;
    if (overlay != nullptr) pass::change_numbers(checkpoint, *overlay);
    if (!requantize(s, checkpoint, *options.quantize, context, job.requantized, own) || !pass::quantize(checkpoint, *options.quantize, own)) return fail();
    made = made_text(checkpoint);
    if (overlay != nullptr) pass::give_codes(checkpoint, *overlay);
    if (overlay != nullptr) job.calibration = overlay->digest;
  }
  note_requantized(checkpoint, job);
  StreamSurveyor whole(source_of(s, job), context);
  const WriteContext write{.package = s.package,
                           .facts = s.facts,
                           .surveyor = whole,
                           .dense_dtype = options.dense_dtype,
                           .stored = options.stored,
                           .restore_origin = read_origin(s.package).dialect == options.to};
  job.plan.origin.dialect = s.checkpoint.dialect;
  std::vector<pass::SmallerBlocks> smaller;
  if (!pass::shard(checkpoint, options.ranks, options.rank, smaller, diag)) return false;
  note_smaller(std::move(smaller), "ranks", job);
  const Result<bool> joined =
      pass::join(checkpoint, {options.forms.projections == pass::Form::joined, options.forms.experts == pass::Form::joined}, whole, job.reformed, own);
  if (!joined) diag.report("shard-unreadable", {}, joined.error().what, "tensors that can be read");
  if (!joined || !*joined) return fail();
  if (!write_plan(*target, std::move(checkpoint), write, options, job, own)) return fail();
  if (options.ranks.count() > 1) mark_rank(options, job.plan);
  for (const Problem& p : own.all()) diag.add(p);
  std::stable_sort(job.plan.programs.begin(), job.plan.programs.end(), [](const auto& a, const auto& b) { return key_of(a) < key_of(b); });
  job.files = plan_files(std::move(job.plan.programs), options.max_shard);
  job.plan.programs.clear();
  std::vector<HistoryStep> history = read_history(s.package);
  history.push_back(step_of(s, options, job, std::move(made)));
  const std::string recorded = history_metadata(std::move(history));
  for (PlannedFile& f : job.files) {
    f.metadata.emplace_back("format", "pt");
    f.metadata.emplace_back("quantbridge.version", std::string(version));
    f.metadata.emplace_back(std::string(history_key), recorded);
    std::vector<std::string> names;
    for (const prog::Program& p : f.programs)
      for (const prog::Output& o : p.outputs) {
        names.push_back(o.name);
        job.bytes_out += prog::output_bytes(o);
        ++job.tensors;
      }
    const bool noted =
        !job.plan.origin.document.empty() || std::any_of(names.begin(), names.end(), [&](const auto& n) { return job.plan.origin.tensors.count(n) > 0; });
    if (noted) f.metadata.emplace_back(std::string(origin_key), origin_metadata(job.plan.origin, names));
  }
  for (const TensorInfo& t : s.package.tensors) job.bytes_in += t.bytes;
  return true;
}

namespace {

// The names that the ranks have, in the order of the ranks; none has a zero byte.
std::vector<std::string> gather_names(host::Communicator& world, const std::vector<std::string>& mine) {
  std::string text;
  for (const std::string& name : mine) text.append(name.c_str(), name.size() + 1);
  std::vector<std::string> all;
  for (const std::string& of_rank : world.gather_text(text))
    for (size_t at = 0; at < of_rank.size(); at += all.back().size() + 1) all.emplace_back(of_rank.c_str() + at);
  return all;
}

// Bytes that leave as they come from the rotated model: no file of the checkpoint has them.
uint64_t made_before(const Session& s, const PlannedFile& f) {
  const auto only_copies = [](const prog::Program& p) {
    return std::all_of(p.ops.begin(), p.ops.end(), [](const prog::Op& op) { return std::holds_alternative<prog::Copy>(op); });
  };
  uint64_t sum = 0;
  for (const prog::Program& p : f.programs)
    if (!p.inputs.empty() && p.inputs.front().file + 1 == s.package.files.size() && only_copies(p))
      for (const prog::Output& o : p.outputs) sum += prog::output_bytes(o);
  return sum;
}

// The directory that all processes write into, which the first one makes.
Result<std::unique_ptr<OutputDirectory>> open_together(const Together& together, const std::function<Result<std::unique_ptr<OutputDirectory>>()>& create,
                                                       const std::string& fingerprint) {
  if (together.world == nullptr) return create();
  Result<std::unique_ptr<OutputDirectory>> dir = std::unique_ptr<OutputDirectory>();
  if (together.rank() == 0) dir = create();
  std::string files = together.rank() == 0 && dir ? (*dir)->path().native() : std::string();
  QB_TRY(agree(together.world, dir ? Result<void>() : Result<void>(dir.error())));
  together.world->broadcast_text(files);
  if (together.rank() != 0) dir = OutputDirectory::join(files, together.rank(), fingerprint);
  return agree(together.world, std::move(dir));
}

}  // namespace

Result<JobReport> write_job(const Session& s, const Job& job, const std::filesystem::path& out, bool force, bool checksums, Context& context,
                            const Together& together) {
  const std::string print = fingerprint(s, job, checksums);
  const auto create = [&] { return OutputDirectory::create(out, s.path, force, print, job.bytes_out); };
  QB_ASSIGN(const std::unique_ptr<OutputDirectory> dir, open_together(together, create, print));
  JobReport report;
  report.start = dir->start();
  std::vector<bool> finished, others;
  for (const PlannedFile& f : job.files) finished.push_back(dir->finished(f.name));
  for (const int rank : share_files(job.files, finished, together.size())) others.push_back(rank != together.rank());
  QB_ASSIGN(report.run, together.or_end(run_plan(job.files, source_of(s, job), *dir, checksums, context, others)));
  for (size_t f = 0; !s.rotated.empty() && f < job.files.size(); ++f)
    if (!others[f]) report.run.bytes_copied_unchanged -= made_before(s, job.files[f]);
  if (together.world != nullptr) {
    std::array<uint64_t, 4> sums{report.run.bytes_in, report.run.bytes_out, report.run.bytes_copied_unchanged, static_cast<uint64_t>(report.run.tensors)};
    together.world->sum(std::span(sums));  // nobody gets past this before all have written their files
    report.run = {sums[0], sums[1], sums[2], static_cast<int64_t>(sums[3]), gather_names(*together.world, report.run.not_finite)};
  }
  Diagnostics seen;
  for (const std::string& name : report.run.not_finite) seen.report("output-not-finite", {.tensor = name}, "NaN or infinite numbers", "finite numbers");
  report.problems.assign(seen.all().begin(), seen.all().end());
  const auto complete = [&]() -> Result<void> {
    // Quantization documents of the source are stale now; the dialect has written its own.
    std::vector<std::string> skip{"config.json",       "hf_quant_config.json",         "quantize_config.json",
                                  "quant_config.json", "model.safetensors.index.json", "recipe.yaml"};
    QB_TRY(copy_other_files(s.path, s.package, dir->path(), skip));
    if (const std::string index = index_document(job.files); !index.empty()) QB_TRY(dir->write_file("model.safetensors.index.json", index));
    for (const auto& [name, document] : job.plan.documents) QB_TRY(dir->write_file(name, dump_json(*document) + "\n"));
    return dir->commit();
  };
  QB_TRY(agree(together.world, together.rank() == 0 ? complete() : Result<void>()));
  QB_ASSIGN(report.requantize_errors, requantize_errors(job.requantized, out, context, together));
  return report;
}

}  // namespace qb
