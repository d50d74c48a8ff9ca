#include "bridge/calibrate.h"

#include <cstring>

#include "bridge/runtime.h"
#include "engine/calibrate.h"
#include "engine/ranges.h"
#include "exec/execute.h"
#include "host/cpu.h"
#include "ir/given.h"
#include "pass/settle.h"

namespace qb {
namespace {

// Everything that the job asks for; the checkpoint is settled on the way, and taken apart as the job takes it. Whatever it takes a stand-in for is what has to
// be measured.
Result<std::vector<pass::Measured>> wanted(ir::Checkpoint& settled, const Session& s, const JobOptions& job, Context& context) {
  StreamSurveyor surveyor(*s.package.source, context);
  Diagnostics diag;
  QB_TRY(pass::settle(settled, surveyor, diag));
  std::vector<pass::Reformed> reformed;
  std::vector<pass::SmallerBlocks> smaller;
  pass::separate(settled, taken_apart(s, job.forms), reformed, smaller, diag);
  ir::Checkpoint planned = settled;
  pass::quantize(planned, *job.quantize, diag);
  std::vector<pass::Measured> out;
  for (const ir::Module& m : planned.modules)
    for (const ir::Stored& part : m.parts)
      if (ir::is_given(part) && part.role != ir::Role::input_zero) out.push_back({m.path, part.role});
  return out;
}

Result<bool> measure(const Session& s, JobOptions& job, const Calibration& how, Context& context, Diagnostics& diag) {
  job.quantize->ranges = pass::Ranges{.measured = {}, .otherwise = recipe::Range{-1, 1}};
  Job rehearsal;
  if (!plan_job(s, job, context, rehearsal, diag)) return false;
  ir::Checkpoint checkpoint = s.checkpoint;
  QB_ASSIGN(const std::vector<pass::Measured> places, wanted(checkpoint, s, job, context));
  job.quantize->ranges = pass::Ranges{};
  if (places.empty()) return true;
  QB_ASSIGN(const std::vector<std::vector<int32_t>> samples, read_samples(s, how.file, how.limits));

  const bool compressor = job.quantize->numerics == recipe::Numerics::llm_compressor;
  engine::RangeObservers observers;
  for (const pass::Measured& what : places) observers.watch(what, compressor && what.role != ir::Role::input_scale);
  host::ThreadPool pool(context.limits.threads);
  host::Arena none;
  model::Options options;
  options.linear.cpu = host::this_cpu();
  options.linear.inputs = kernel::Inputs::f32;
  options.linear.observers = &observers;
  options.every_expert = compressor;
  const model::Loading loading{s.package, checkpoint, none, pool, context, options};
  const Result<std::unique_ptr<model::LayerStream>> model = model::stream(loading);
  if (!model) return refusal(model.error(), options.linear.policy);
  QB_TRY(engine::calibrate(**model, samples,
                           {.memory = context.limits.memory_budget / 2,
                            .scratch = how.scratch,
                            .progress = how.progress,
                            .cancelled = context.cancelled,
                            .sample_done = [&observers] { observers.sample_done(); }}));
  job.quantize->ranges = observers.ranges();
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

Result<bool> calibrate(const Session& s, JobOptions& job, const Calibration& how, Context& context, Diagnostics& diag, const Together& together) {
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
