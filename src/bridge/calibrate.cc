#include "bridge/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "bridge/streamed.h"
#include "bridge/weights_work.h"
#include "calib/calibrate.h"
#include "calib/range_observer.h"
#include "calib/ranges.h"
#include "exec/execute.h"
#include "host/cpu.h"
#include "io/added_source.h"
#include "ir/given.h"
#include "pass/settle.h"
#include "quantbridge/version.h"

namespace qb {
namespace {

constexpr FileId most_store_files = 1 << 24;

using Samples = std::vector<std::vector<int32_t>>;
using Algorithms = std::vector<const calib::Algorithm*>;

// Of a planned checkpoint: whatever it takes a stand-in for is what has to be measured.
std::vector<pass::Measured> places_of(const ir::Checkpoint& planned) {
  std::vector<pass::Measured> out;
  for (const ir::Module& m : planned.modules)
    for (const ir::Stored& part : m.parts)
      if (ir::is_given(part) && part.role != ir::Role::input_zero) out.push_back({m.path, part.role});
  return out;
}

// The algorithms that modules name, each once, factors before codes.
Result<Algorithms> algorithms_of(const ir::Checkpoint& planned) {
  Algorithms out;
  for (const ir::Module& m : planned.modules) {
    if (!m.make || m.make->algorithm.empty()) continue;
    QB_ASSIGN(const Algorithms named, calib::parse_algorithms(m.make->algorithm, recipe::find_recipe(m.make->recipe)->numerics));
    for (const calib::Algorithm* a : named)
      if (std::find(out.begin(), out.end(), a) == out.end()) out.push_back(a);
  }
  std::stable_sort(out.begin(), out.end(), [](const auto* a, const auto* b) { return a->kind > b->kind; });
  return out;
}

// Of everything that an algorithm's results depend on.
std::string digest_of(const Session& s, const ir::Checkpoint& planned, const Samples& samples, bool every_expert) {
  std::string all = fmt::format("calibration 3 {} {}\n{}", version, every_expert, state_of(s));
  for (const ir::Module& m : planned.modules)
    if (m.make) all += fmt::format("{} {} {} {}\n", m.path, to_string(*m.scheme), m.make->recipe, m.make->algorithm);
  return samples_digest(all, samples);
}

// The model of a checkpoint and who works on it; a traversal by all samples at a time.
class Runner {
 public:
  Runner(const Session& s, const Samples& samples, const Calibration& how, bool every_expert, Context& context)
      : s_(s), samples_(samples), how_(how), every_expert_(every_expert), context_(context), pool_(context.limits.threads) {}

  host::ThreadPool& pool() { return pool_; }

  Result<void> run(const ir::Checkpoint& checkpoint, layer::Observers& observers, calib::LayerWork& work) {
    model::Options options;
    options.linear.cpu = host::this_cpu();
    options.linear.inputs = kernel::Inputs::f32;
    options.linear.observers = &observers;
    options.every_expert = every_expert_;
    QB_ASSIGN(const std::unique_ptr<Streamed> model, Streamed::open(s_, checkpoint, pool_, context_, options));
    const std::filesystem::path beside = how_.out.parent_path();
    return calib::calibrate(
        model->model(), samples_, work,
        {.memory = context_.limits.memory_budget / 2, .scratch = beside.empty() ? "." : beside, .progress = how_.progress, .cancelled = context_.cancelled});
  }

 private:
  const Session& s_;
  const Samples& samples_;
  const Calibration& how_;
  bool every_expert_;
  Context& context_;
  host::ThreadPool pool_;
};

// Every algorithm in its turn. False: `diag` says why.
Result<bool> make_weights(const Session& s, const Algorithms& algorithms, ir::Checkpoint running, ir::Checkpoint planned, Runner& runner, LayerStore& store,
                          MemorySource& tried, FileId first_tried, Context& context, Diagnostics& diag) {
  for (const calib::Algorithm* a : algorithms) {
    const WeightsPlan plan{.algorithm = *a,
                           .stage = fmt::format("{}{}", a->name, a->numerics ? fmt::format(".{}", recipe::to_string(*a->numerics)) : ""),
                           .running = running,
                           .planned = planned,
                           .store = store,
                           .source = *s.package.source,
                           .tried = tried,
                           .first_tried = first_tried,
                           .context = context,
                           .tools = {runner.pool(), context.isa},
                           .memory = context.limits.memory_budget / 4};
    WeightsWork work(plan);
    if (!work.check(diag)) return false;
    if (work.unfinished()) QB_TRY(runner.run(running, work, work));
    pass::change_numbers_alone(running, store.overlay());
    pass::change_numbers(planned, store.overlay());
  }
  return true;
}

// Numbers that an algorithm left about the inputs of a module; none where it left nothing.
Result<std::vector<float>> left_about(const Session& s, const pass::Overlay& overlay, std::string_view what, const pass::Measured& place) {
  const auto at = overlay.tensors.find(fmt::format("{}:{}", what, place.path));
  if (place.role != ir::Role::input_scale || at == overlay.tensors.end()) return std::vector<float>();
  std::vector<float> out(at->second.bytes / sizeof(float));
  const ReadRequest read{at->second.file, at->second.offset, std::as_writable_bytes(std::span(out))};
  QB_TRY(s.package.source->read(std::span(&read, 1)));
  return out;
}

// What flowed into modules whose inputs were scaled: the algorithm has seen it, column by column.
Result<void> known_ranges(const Session& s, const pass::Overlay& overlay, std::vector<pass::Measured>& places, pass::Ranges& ranges) {
  std::vector<pass::Measured> left;
  for (pass::Measured& what : places) {
    QB_ASSIGN(const std::vector<float> range, left_about(s, overlay, "range", what));
    if (range.empty())
      left.push_back(std::move(what));
    else
      ranges.measured[what] = {range[0], range[1]};
  }
  places = std::move(left);
  return {};
}

// Of weights before they are rounded; modules that engines fuse have the largest of theirs.
Result<void> stage_ranges(const Session& s, const ir::Checkpoint& planned, const std::vector<pass::Measured>& stages, Context& context, pass::Ranges& ranges) {
  const std::set<pass::Measured> wanted(stages.begin(), stages.end());
  std::map<std::string, recipe::Range> together;
  const auto key = [&](const ir::Module& m) {
    const std::string& fused = planned.topology.modules[static_cast<size_t>(m.topology)].fused;
    return fused.empty() ? m.path : fused;
  };
  for (const ir::Module& m : planned.modules) {
    if (!wanted.contains({m.path, ir::Role::stage})) continue;
    const ir::Stored& code = *m.part(ir::Role::code);
    QB_ASSIGN(const std::vector<std::byte> numbers, read_numbers(code, *s.package.source, context));
    const float most = recipe::absmax(numbers.data(), code.elem, m.n * m.k, context.isa);
    together[key(m)].add({-most, most});
  }
  for (const ir::Module& m : planned.modules)
    if (wanted.contains({m.path, ir::Role::stage})) ranges.measured[{m.path, ir::Role::stage}] = together.at(key(m));
  return {};
}

// How the ranges of a job are taken.
class Observing {
 public:
  Observing(const ir::Checkpoint& planned, recipe::Numerics numerics) : planned_(planned), numerics_(numerics) {
    for (const ir::Module& m : planned.modules) by_path_.emplace(m.path, &m);
  }

  // Empty: as the producer does, which has a moving average for llm-compressor's caches.
  Result<void> choose(std::string_view observer) {
    QB_ASSIGN(inputs_, calib::parse_observer(observer.empty() ? "max" : observer, numerics_));
    const bool average = observer.empty() && numerics_ == recipe::Numerics::llm_compressor;
    QB_ASSIGN(cache_, calib::parse_observer(average ? "average" : observer.empty() ? "max" : observer, numerics_));
    return {};
  }
  const calib::ChosenObserver& of(const pass::Measured& what) const { return what.role == ir::Role::input_scale ? inputs_ : cache_; }
  // Ranges alone say what columns of other sizes become, and nothing else does.
  bool by_range() const { return inputs_.kind->name == "max"; }

  bool check(const std::vector<pass::Measured>& places, Diagnostics& diag) const {
    for (const pass::Measured& what : places) {
      const std::string_view instead = of(what).kind->refuses(type(what));
      if (!instead.empty())
        diag.report("observer-unsuited", {.module = what.path},
                    fmt::format("{} by {}", to_string(ir::Activation{type(what), ir::When::fixed}), of(what).kind->name), std::string(instead));
    }
    return diag.ok();
  }

  const ir::QuantType& type(const pass::Measured& what) const {
    return what.role == ir::Role::input_scale ? by_path_.at(what.path)->scheme->input->type : planned_.kv->scheme.type;
  }

 private:
  const ir::Checkpoint& planned_;
  recipe::Numerics numerics_;
  std::map<std::string_view, const ir::Module*> by_path_;
  calib::ChosenObserver inputs_, cache_;
};

bool names_algorithms(pass::QuantConfig& config) {
  const std::vector<pass::Says*> entries = config.entries();
  return std::any_of(entries.begin(), entries.end(), [](const pass::Says* says) { return says->weight && !says->weight->algorithm.empty(); });
}

// Weights that are not what the source has, module by module, are none that an algorithm sees.
bool suits_algorithms(const Job& rehearsal, Diagnostics& diag) {
  if (rehearsal.requantized.source != nullptr)
    diag.report("algorithm-unsuited", {.module = rehearsal.requantized.weights.front().path}, "a weight that is quantized already",
                "plain weights: convert --to dense first");
  if (!rehearsal.reformed.empty())
    diag.report("algorithm-unsuited", {.module = rehearsal.reformed.front().modules.front()}, "matrices that are taken apart or put together on the way",
                "the checkpoint's own form; convert it first");
  return diag.ok();
}

Result<bool> measure(Session& s, JobOptions& job, Calibration& how, Context& context, Diagnostics& diag) {
  job.quantize->ranges = pass::Ranges{.measured = {}, .otherwise = recipe::Range{-1, 1}};
  job.quantize->overlay = pass::Overlay{};
  Job rehearsal;
  const Limits limits = context.limits;  // planning takes what making weights anew needs
  if (!plan_job(s, job, context, rehearsal, diag)) return false;
  if (names_algorithms(job.quantize->config) && !suits_algorithms(rehearsal, diag)) return false;
  context.limits = limits;
  ir::Checkpoint plain = s.checkpoint;
  StreamSurveyor surveyor(*s.package.source, context);
  Diagnostics said;
  QB_TRY(pass::settle(plain, surveyor, said));
  // As the job takes it apart.
  std::vector<pass::Reformed> reformed;
  std::vector<pass::SmallerBlocks> smaller;
  pass::separate(plain, taken_apart(s, job.forms), reformed, smaller, said);
  ir::Checkpoint planned = plain;
  pass::quantize(planned, *job.quantize, said);
  std::vector<pass::Measured> places = places_of(planned);
  const auto weights = std::stable_partition(places.begin(), places.end(), [](const pass::Measured& what) { return what.role != ir::Role::stage; });
  const std::vector<pass::Measured> stages(weights, places.end());
  places.erase(weights, places.end());
  QB_ASSIGN(const Algorithms algorithms, algorithms_of(planned));
  Observing observing(planned, job.quantize->numerics);
  QB_TRY(observing.choose(how.observer));
  if (!how.observer.empty() && places.empty())
    return Error{Errc::invalid_argument, fmt::format("observer {}: nothing in this job has static scales that are measured", how.observer)};
  if (!observing.check(places, diag)) return false;
  pass::Ranges& ranges = job.quantize->ranges.emplace();
  job.quantize->overlay.reset();
  if (places.empty() && algorithms.empty()) return true;
  QB_ASSIGN(const Samples samples, read_samples(s, how.file, how.limits));
  const bool compressor = job.quantize->numerics == recipe::Numerics::llm_compressor;
  Runner runner(s, samples, how, compressor, context);
  if (!algorithms.empty()) {
    // The number behind the package's files is that of weights which are made anew while they are read.
    const auto first = static_cast<FileId>(s.package.files.size() + 1);
    QB_ASSIGN(how.store, LayerStore::open(how.out, digest_of(s, planned, samples, compressor), first));
    const auto tried = std::make_shared<MemorySource>();
    const FileId first_tried = first + most_store_files;
    s.package.source = std::make_shared<AddedSource>(std::make_shared<AddedSource>(s.package.source, first, how.store->source()), first_tried, tried);
    QB_ASSIGN(const bool made, make_weights(s, algorithms, plain, planned, runner, *how.store, *tried, first_tried, context, diag));
    if (!made) return false;
    job.quantize->overlay = how.store->overlay();
    if (observing.by_range()) QB_TRY(known_ranges(s, how.store->overlay(), places, ranges));
  }
  if (how.store) pass::change_numbers(planned, how.store->overlay());
  QB_TRY(stage_ranges(s, planned, stages, context, ranges));
  if (places.empty()) return true;
  calib::RangeObservers observers;
  for (const pass::Measured& what : places) {
    std::vector<float> factors;
    if (how.store) {
      QB_ASSIGN(factors, left_about(s, how.store->overlay(), "inputs", what));
    }
    observers.watch(what, observing.of(what), observing.type(what), std::move(factors));
  }
  QB_TRY(runner.run(plain, observers, observers));
  for (const auto& [what, range] : observers.ranges().measured) ranges.measured[what] = range;
  return true;
}

// Rank 0's, on every rank. A path has no zero byte.
void share(host::Communicator& world, pass::Ranges& ranges) {
  std::string text;
  if (world.rank() == 0)
    for (const auto& [what, range] : ranges.measured) {
      text.append(what.path.c_str(), what.path.size() + 1);
      text += static_cast<char>(what.role);
      text.append(reinterpret_cast<const char*>(&range), sizeof range);
    }
  world.broadcast_text(text);
  ranges = {};
  for (size_t at = 0; at < text.size();) {
    pass::Measured what{.path = text.c_str() + at};
    at += what.path.size() + 1;
    what.role = static_cast<ir::Role>(text[at++]);
    recipe::Range& range = ranges.measured[std::move(what)];
    std::memcpy(&range, text.data() + at, sizeof range);
    at += sizeof range;
  }
}

}  // namespace

Result<bool> calibrate(Session& s, JobOptions& job, Calibration& how, Context& context, Diagnostics& diag, const Together& together) {
  if (together.world != nullptr && names_algorithms(job.quantize->config))
    return Error{Errc::invalid_argument, "an algorithm makes weights in one process: run quantize by itself, without mpirun"};
  if (together.world == nullptr) return measure(s, job, how, context, diag);
  QB_ASSIGN(bool measured, agree(together.world, together.rank() == 0 ? measure(s, job, how, context, diag) : Result<bool>(true)));
  together.world->broadcast(std::as_writable_bytes(std::span(&measured, 1)));
  if (!measured) return false;
  pass::Ranges ranges = job.quantize->ranges.value_or(pass::Ranges{});
  share(*together.world, ranges);
  job.quantize->ranges = std::move(ranges);
  return true;
}

}  // namespace qb
