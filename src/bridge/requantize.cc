#include "bridge/requantize.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <unordered_map>

#include "exec/buffer.h"
#include "exec/execute.h"
#include "ir/stack.h"
#include "pass/assignment.h"

namespace qb {
namespace {

// The weights' programs to float32, in the order of the modules. False: `diag` says why.
bool dense_programs(const Session& s, const ir::Checkpoint& from, const std::set<std::string>& paths, Surveyor& surveyor, std::vector<prog::Program>& programs,
                    std::vector<std::string>& made, Diagnostics& diag) {
  ir::Checkpoint c = from;
  std::erase_if(c.modules, [&](const ir::Module& m) { return !paths.contains(m.path); });
  c.kv.reset();
  Export out;
  if (!find_dialect("dense")->write(c, {.package = s.package, .facts = s.facts, .surveyor = surveyor, .dense_dtype = Elem::f32}, out, diag)) return false;
  std::unordered_map<std::string, size_t> by_name;
  for (size_t i = 0; i < out.programs.size(); ++i) by_name.emplace(out.programs[i].outputs[0].name, i);
  for (const ir::Module& m : c.modules) {
    const auto at = by_name.find(ir::tensor_name(m, "weight"));
    if (at == by_name.end()) continue;
    made.push_back(m.path);
    programs.push_back(std::move(out.programs[at->second]));
  }
  return true;
}

// Whether the numbers of the weight are to be others. Of one that has them already only the activations may change, and are changed here.
bool changes(ir::Module& m, const pass::Assigned& a) {
  if (m.kind == arch::Kind::expert || !a.says_weight || !a.scheme || a.scheme == m.scheme) return false;
  const bool same = a.scheme->weight == m.scheme->weight && a.scheme->features == m.scheme->features;
  // The bias of outputs that are transformed would be another one too.
  if (!same)
    return m.part(ir::Role::bias) == nullptr || std::none_of(m.transforms.begin(), m.transforms.end(), [](const ir::Transform& t) { return t.of_outputs; });
  if (a.scheme->input && a.scheme->input->when == ir::When::fixed) return false;  // refused for want of calibration
  std::erase_if(m.parts, [](const ir::Stored& p) { return p.role == ir::Role::input_scale || p.role == ir::Role::input_zero; });
  m.scheme->input = a.scheme->input;
  return false;
}

}  // namespace

bool requantize(const Session& s, ir::Checkpoint& checkpoint, const pass::QuantizeOptions& options, Context& context, Requantized& out, Diagnostics& diag) {
  std::optional<pass::Assignment> assignment = pass::Assignment::compile(options.config, options.regex, diag);
  if (!assignment) return false;
  std::set<std::string> paths;
  for (ir::Module& m : checkpoint.modules)
    if (m.scheme && m.topology >= 0 && m.part(ir::Role::code) != nullptr &&
        changes(m, assignment->of(checkpoint.topology.modules[static_cast<size_t>(m.topology)], checkpoint.topology, m.scheme)))
      paths.insert(m.path);
  if (paths.empty()) return true;
  StreamSurveyor surveyor(*s.package.source, context);
  std::vector<prog::Program> programs;
  std::vector<std::string> made;
  if (!dense_programs(s, checkpoint, paths, surveyor, programs, made, diag)) return false;
  const auto file = static_cast<FileId>(s.package.files.size());
  // Each thread that makes an output reads through a block of its own.
  const uint64_t part = context.limits.memory_budget / 2;
  context.limits.memory_budget -= part;
  out.file = file;
  out.source = std::make_shared<DerivedSource>(*s.package.source, file, std::move(programs), part / static_cast<uint64_t>(std::max(context.limits.threads, 1)),
                                               context.isa);
  for (ir::Module& m : checkpoint.modules) {
    const size_t i = out.weights.size();  // both in the order of the modules
    if (i == made.size() || m.path != made[i]) continue;
    out.weights.push_back({m.path, to_string(*m.scheme)});
    out.lost_inputs |= m.part(ir::Role::input_scale) != nullptr || m.part(ir::Role::output_scale) != nullptr;
    std::erase_if(m.parts, [](const ir::Stored& p) { return p.role != ir::Role::bias && p.role != ir::Role::plain; });
    m.parts.insert(m.parts.begin(), {.role = ir::Role::code,
                                     .tensor = ir::tensor_name(m, "weight"),
                                     .file = file,
                                     .offset = out.source->offset(i),
                                     .bytes = static_cast<uint64_t>(m.n * m.k) * 4,
                                     .container = Elem::f32,
                                     .elem = Elem::f32,
                                     .shape = {m.n, m.k},
                                     .view = ir::row_major(m.n, m.k, 32)});
    m.transforms.clear();
    m.scheme.reset();
    m.make = ir::Make{};
  }
  return true;
}

namespace {

// Of every so-manieth weight from the first one on; 0 of the others, and nothing of what is not in the checkpoint.
Result<std::vector<std::optional<double>>> errors_of(const Requantized& r, const std::filesystem::path& out, size_t first, size_t step, Context& context) {
  std::vector<std::optional<double>> errors(r.weights.size());
  QB_ASSIGN(const Session s, open_session(out));
  StreamSurveyor surveyor(*s.package.source, context);
  std::set<std::string> paths;
  for (const Requantized::Weight& w : r.weights) paths.insert(w.path);
  std::vector<prog::Program> programs;
  std::vector<std::string> made;
  Diagnostics diag;
  if (!s.readable || !dense_programs(s, s.checkpoint, paths, surveyor, programs, made, diag)) return errors;
  const auto file = static_cast<FileId>(s.package.files.size());
  const uint64_t budget = context.limits.memory_budget, block = std::clamp<uint64_t>(budget / 8, 4096, 1 << 20) / 4 * 4;
  std::unordered_map<std::string, size_t> place;
  for (size_t i = 0; i < made.size(); ++i) place.emplace(made[i], i);
  DerivedSource now(*s.package.source, file, std::move(programs), budget / 2, context.isa);
  Buffer buffer;
  QB_ASSIGN(std::byte* const room, buffer.at_least(2 * block));
  for (size_t i = 0; i < r.weights.size(); ++i) {
    const auto at = place.find(r.weights[i].path);
    if (at == place.end()) continue;
    errors[i] = 0;
    if (i % step != first) continue;
    const uint64_t bytes = r.source->offset(i + 1) - r.source->offset(i);
    double differences = 0, numbers = 0;
    for (uint64_t done = 0; done < bytes; done += block) {
      if (context.stop()) return Error{Errc::cancelled, "interrupted"};
      const auto take = static_cast<size_t>(std::min(block, bytes - done));
      const ReadRequest before{r.file, r.source->offset(i) + done, {room, take}}, after{file, now.offset(at->second) + done, {room + block, take}};
      QB_TRY(r.source->read(std::span(&before, 1)));
      QB_TRY(now.read(std::span(&after, 1)));
      const auto *x = reinterpret_cast<const float*>(room), *y = reinterpret_cast<const float*>(room + block);
      for (size_t e = 0; e < take / 4; ++e) {
        const double d = static_cast<double>(y[e]) - static_cast<double>(x[e]);
        differences += d * d;
        numbers += static_cast<double>(x[e]) * static_cast<double>(x[e]);
      }
    }
    errors[i] = numbers > 0 ? std::sqrt(differences / numbers) : differences > 0 ? INFINITY : 0;
  }
  return errors;
}

}  // namespace

Result<std::map<std::string, double>> requantize_errors(const Requantized& r, const std::filesystem::path& out, Context& context, const Together& together) {
  std::map<std::string, double> errors;
  if (r.source == nullptr) return errors;
  QB_ASSIGN(const std::vector<std::optional<double>> own,
            agree(together.world, errors_of(r, out, static_cast<size_t>(together.rank()), static_cast<size_t>(together.size()), context)));
  std::vector<double> all;
  for (const std::optional<double>& e : own) all.push_back(e.value_or(0));
  if (together.world != nullptr) together.world->sum(std::span(all));  // one rank's number, and zeros
  for (size_t i = 0; i < own.size(); ++i)
    if (own[i]) errors[r.weights[i].path] = all[i];
  return errors;
}

}  // namespace qb
