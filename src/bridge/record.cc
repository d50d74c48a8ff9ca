#include "bridge/record.h"

#include <fmt/format.h>

#include <map>

#include "bridge/rotate.h"
#include "quantbridge/version.h"

namespace qb {
namespace {

std::string count(size_t n, std::string_view what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

std::string repair_text(const pass::Repaired& r) {
  const std::string loss = !r.max_relative_error          ? "; what it costs is not known"
                           : *r.max_relative_error == 0.0 ? "; no value changed"
                                                          : fmt::format("; off by up to {:.2g} of a number", *r.max_relative_error);
  return fmt::format("{} ({}): {}{}", r.code, count(r.modules.size(), "place"), r.how, loss);
}

}  // namespace

std::vector<std::string> made_text(const ir::Checkpoint& c) {
  std::map<std::string, size_t> modules;
  for (const ir::Module& m : c.modules)
    if (m.make)
      ++modules[fmt::format("made {} by the recipe {}{}{}", to_string(*m.scheme), m.make->recipe, m.make->algorithm.empty() ? "" : " with ",
                            m.make->algorithm)];
  std::vector<std::string> out;
  for (const auto& [text, n] : modules) out.push_back(fmt::format("{} {}", count(n, "module"), text));
  return out;
}

HistoryStep step_of(const Session& s, const JobOptions& options, const Job& job, std::vector<std::string> made) {
  const ir::Producer& producer = s.checkpoint.producer;
  HistoryStep out{.by = fmt::format("quantbridge {}", version),
                  .did = options.quantize ? "quantize" : "convert",
                  .from = s.checkpoint.dialect,
                  .producer = producer.version.empty() ? producer.name : fmt::format("{} {}", producer.name, producer.version),
                  .to = options.to,
                  .changes = std::move(made)};
  if (!s.rotated.empty()) out.changes.push_back(fmt::format("{} before anything else: {}", rotated_sentence, s.rotated));
  for (const Export::SchemeChange& c : job.plan.scheme_changes)
    out.changes.push_back(fmt::format("{} from {} to {}: {}", count(c.modules.size(), "module"), c.from, c.to, c.reason));
  for (const pass::Reformed& f : job.reformed) out.changes.push_back(fmt::format("{} as {}: {}", count(f.modules.size(), "module"), f.into, f.how));
  if (options.to == "dense" && options.stored) out.changes.emplace_back("the bare dequantized matrices, without what pre-scales and low-rank parts add");
  if (options.ranks.count() > 1) out.changes.push_back(fmt::format("the part of rank {} (tp {}, ep {})", options.rank, options.ranks.tp, options.ranks.ep));
  for (const pass::Repaired& r : job.repairs) out.repairs.push_back(repair_text(r));
  for (const Export::Lost& l : job.plan.lost) out.lost.push_back(fmt::format("{}: {}", l.what, l.why));
  return out;
}

}  // namespace qb
