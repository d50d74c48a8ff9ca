#include "bridge/team.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "exec/execute.h"
#include "host/cpu.h"
#include "pass/settle.h"
#include "pass/shard.h"

namespace qb {
namespace {

std::string problems_text(const Diagnostics& diag) {
  std::string out;
  for (const Problem& p : diag.all())
    if (p.severity == Severity::error)
      out += fmt::format("{}{} {}: found {}, expected {}", out.empty() ? "the model cannot be shared: " : "; ", p.code,
                         escape(p.module.empty() ? p.file : p.module), escape(p.found), escape(p.expected));
  return out;
}

// The words of each rank's part of the vocabulary. Nothing where a rank has none.
Result<std::vector<arch::Range>> words_of(const arch::Topology& t, const arch::Sharing& how) {
  const int64_t ranks = how.ranks.tp;
  const auto head = std::find_if(t.modules.begin(), t.modules.end(),
                                 [](const arch::Module& m) { return m.parallel == arch::Parallel::vocabulary && m.kind == arch::Kind::embedding; });
  std::vector<arch::Range> words;
  for (int64_t rank = 0; head != t.modules.end() && rank < ranks; ++rank) {
    arch::Uneven why;
    const std::optional<arch::Share> share = arch::share_of(*head, how, rank, why);
    if (!share || share->ranges.size() != 1) break;
    words.push_back(share->ranges.front());
  }
  if (static_cast<int64_t>(words.size()) == ranks) return words;
  return Error{Errc::bad_input, fmt::format("{} ranks cannot share the vocabulary", ranks)};
}

// Fields of a problem, each behind its length.
void append(const Problem& p, std::string& out) {
  const std::string kinds{static_cast<char>(p.severity), static_cast<char>(p.cls), static_cast<char>(p.repair)};
  for (const std::string* field : {&kinds, &p.code, &p.file, &p.tensor, &p.module, &p.found, &p.expected, &p.action}) {
    const auto size = static_cast<uint32_t>(field->size());
    out.append(reinterpret_cast<const char*>(&size), sizeof size);
    out += *field;
  }
}

Problem take_problem(std::string_view& rest) {
  Problem p;
  std::string kinds;
  for (std::string* field : {&kinds, &p.code, &p.file, &p.tensor, &p.module, &p.found, &p.expected, &p.action}) {
    uint32_t size = 0;
    std::memcpy(&size, rest.data(), sizeof size);
    *field = rest.substr(sizeof size, size);
    rest.remove_prefix(sizeof size + size);
  }
  p.severity = static_cast<Severity>(kinds[0]);
  p.cls = static_cast<ProblemClass>(kinds[1]);
  p.repair = static_cast<Repair>(kinds[2]);
  return p;
}

}  // namespace

Result<void> agree(host::Communicator* world, const Result<void>& mine) {
  if (world == nullptr || world->size() == 1) return mine;
  const std::string text = mine ? std::string() : fmt::format("{} {}", static_cast<int>(mine.error().code), mine.error().what);
  const std::vector<std::string> all = world->gather_text(text);
  const auto failed = std::find_if(all.begin(), all.end(), [](const std::string& t) { return !t.empty(); });
  if (failed == all.end()) return {};
  const size_t space = failed->find(' ');
  const auto code = static_cast<Errc>(std::stoi(failed->substr(0, space)));
  std::string what = failed->substr(space + 1);
  if (std::any_of(all.begin(), all.end(), [&](const std::string& t) { return t != *failed; }))
    what = fmt::format("rank {} of {}: {}", failed - all.begin(), all.size(), what);
  return Error{code, std::move(what)};
}

void pool_problems(host::Communicator* world, size_t common, Diagnostics& diag) {
  if (world == nullptr) return;
  std::string mine;
  for (const Problem& p : diag.all().subspan(common)) append(p, mine);
  Diagnostics all;
  for (const Problem& p : diag.all().first(common)) all.add(p);
  for (const std::string& text : world->gather_text(mine))
    for (std::string_view rest = text; !rest.empty();) all.add(take_problem(rest));
  diag = std::move(all);
}

Result<void> check_world(host::Communicator* world, arch::Ranks ranks) {
  const int64_t size = world == nullptr ? 1 : world->size();
  if (ranks.count() == 1 && size > 1) return Error{Errc::invalid_argument, fmt::format("{0} processes were started: --tp {0} lets them share the model", size)};
  if (size != ranks.count())
    return Error{Errc::invalid_argument, fmt::format("{} ranks share the model, and {} process{} started: mpirun -n {} quantbridge ...", ranks.count(), size,
                                                     size == 1 ? " was" : "es were", ranks.count())};
  if (size == 1) return {};
  const std::vector<std::string> all = world->gather_text(host::to_string(host::this_cpu().features));
  for (size_t r = 1; r < all.size(); ++r)
    if (all[r] != all[0])
      return Error{
          Errc::invalid_argument,
          fmt::format("rank {} runs on a processor with other instruction sets ({}) than rank 0 ({}), and would compute other numbers: set QUANTBRIDGE_ISA to "
                      "what all have, generic, avx2 or avx512",
                      r, all[r], all[0])};
  return {};
}

RankedModel::RankedModel(host::Communicator& world, arch::Ranks ranks) : world_(world), ranks_(ranks) {
  const int64_t rank = world.rank(), in_expert = std::max<int64_t>(ranks.tp / ranks.ep, 1);
  tensor_ = world.split(static_cast<int>(rank / ranks.tp));
  expert_ = world.split(static_cast<int>(rank / in_expert));
  // Ranks with the same place in their groups; where attention is repeated (ep above tp), all of them.
  spread_ = world.split(static_cast<int>(rank % in_expert));
  team_.tensor = ranks.tp > 1 ? tensor_.get() : nullptr;
  team_.expert = expert_.get();
  team_.spread = ranks.ep > 1 ? spread_.get() : nullptr;
}

Result<void> RankedModel::take_part(ir::Checkpoint& checkpoint, Context& context, Source& source) {
  if (std::any_of(checkpoint.modules.begin(), checkpoint.modules.end(), [](const ir::Module& m) { return m.make.has_value(); }))
    return Error{
        Errc::invalid_argument,
        "weights that are quantized while they are loaded cannot be shared among ranks: their scales are of whole matrices; quantize them to disk first"};
  StreamSurveyor surveyor(source, context);
  Diagnostics diag;
  QB_TRY(pass::settle(checkpoint, surveyor, diag));
  team_.sharing = {ranks_, checkpoint.topology.kv_heads};
  if (team_.tensor != nullptr) {
    QB_ASSIGN(team_.words, words_of(checkpoint.topology, team_.sharing));
  }
  std::vector<pass::SmallerBlocks> smaller;
  if (!pass::shard(checkpoint, team_.sharing, world_.rank(), smaller, diag)) return Error{Errc::bad_input, problems_text(diag)};
  // What is added to a sum is added once.
  for (ir::Module& m : checkpoint.modules) {
    if (m.topology < 0) continue;
    const arch::Module& t = checkpoint.topology.modules[static_cast<size_t>(m.topology)];
    if (t.parallel == arch::Parallel::rows && arch::cut_of(t, ranks_, world_.rank()).place > 0)
      std::erase_if(m.parts, [](const ir::Stored& s) { return s.role == ir::Role::bias; });
  }
  return {};
}

}  // namespace qb
