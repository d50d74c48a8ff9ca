#include "bridge/rotate.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "exec/derived_source.h"
#include "exec/execute.h"
#include "host/host.h"
#include "pass/rotate.h"

namespace qb {
namespace {

// A source and what it reads from.
struct Made {
  Made(std::shared_ptr<Source> from, FileId file, std::vector<prog::Program> programs, uint64_t bytes, Isa isa, int at_once)
      : base(std::move(from)), source(*base, file, std::move(programs), bytes, isa, at_once) {}
  std::shared_ptr<Source> base;
  DerivedSource source;
};

// Buffers of the largest block that has to be made at once.
uint64_t largest_block(const std::vector<prog::Program>& programs) {
  uint64_t most = 0;
  for (const prog::Program& p : programs) {
    const int64_t rows = std::min(p.row_multiple, p.rows);
    most = std::max(most, working_set(p, rows) + output_slice(p, 0, {0, rows}).bytes);
  }
  return most;
}

std::shared_ptr<Json> untied(const Json& config) {
  auto out = std::make_shared<Json>(config);
  constexpr const char* key = "tie_word_embeddings";
  (*out)[key] = false;
  if (&arch::text_config(config) != &config) (*out)["text_config"][key] = false;
  return out;
}

}  // namespace

Result<bool> rotate(Session& s, pass::Rotation asked, Context& context) {
  if (!s.readable || !asked.any()) return true;
  pass::Rotated rotated;
  if (!pass::rotate(s.checkpoint, asked, rotated, s.diag)) return false;
  const uint64_t part = context.limits.memory_budget / 2, most = largest_block(rotated.programs);
  if (most > part)
    return Error{Errc::out_of_memory,
                 fmt::format("a block of the rotated model needs {} bytes of buffers, half of the memory budget is {} bytes; raise the budget", most, part)};
  const auto at_once =
      static_cast<int>(std::clamp<uint64_t>(part / std::max<uint64_t>(most, 1), 1, static_cast<uint64_t>(std::max(context.limits.threads, 1))));
  context.limits.memory_budget -= part;
  Package package = s.package;
  const auto file = static_cast<FileId>(package.files.size());
  const auto made = std::make_shared<Made>(package.source, file, std::move(rotated.programs), part / static_cast<uint64_t>(at_once), context.isa, at_once);
  package.source = std::shared_ptr<Source>(made, &made->source);
  package.files.push_back({.name = fmt::format("the rotated model ({})", to_string(rotated)), .size = made->source.size(file)});
  for (const pass::Rotated::Tensor& t : rotated.tensors) {
    TensorInfo info{.name = t.name, .dtype = t.dtype, .shape = t.shape, .file = file, .offset = made->source.offset(t.first)};
    info.bytes = static_cast<uint64_t>(info.elements()) * static_cast<uint64_t>(bits(t.dtype)) / 8;
    const auto at =
        std::lower_bound(package.tensors.begin(), package.tensors.end(), t.name, [](const TensorInfo& a, const std::string& b) { return a.name < b; });
    if (at != package.tensors.end() && at->name == t.name)
      *at = std::move(info);
    else
      package.tensors.insert(at, std::move(info));
  }
  if (rotated.unties) package.set_document("config.json", untied(*package.document("config.json")));
  ir::Checkpoint checkpoint;
  Diagnostics known;  // what is wrong with it has been said
  if (!s.dialect->read({package, s.facts, host::compile_regex}, checkpoint, known)) {
    for (const Problem& p : known.all()) s.diag.add(p);
    return false;
  }
  checkpoint.model_dtype = s.checkpoint.model_dtype;
  s.package = std::move(package);
  s.checkpoint = std::move(checkpoint);
  s.rotated = to_string(rotated);
  return true;
}

}  // namespace qb
