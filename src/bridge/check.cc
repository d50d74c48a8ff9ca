#include "bridge/check.h"

#include <algorithm>
#include <cstring>

#include "bridge/deep_check.h"
#include "pass/shard.h"

namespace qb {
namespace {

// The beginnings of two tensors.
Result<bool> begin_alike(const Session& s, const ir::Stored& a, const ir::Stored& b) {
  constexpr uint64_t limit = 64u << 10;
  if (a.bytes != b.bytes || a.container != b.container || a.shape != b.shape) return false;
  const uint64_t n = std::min(a.bytes, limit);
  std::vector<std::byte> x(n), y(n);
  const ReadRequest requests[] = {{a.file, a.offset, x}, {b.file, b.offset, y}};
  QB_TRY(s.package.source->read(requests));
  return std::memcmp(x.data(), y.data(), n) == 0;
}

}  // namespace

TiedHead tied_head(const ir::Checkpoint& c) {
  TiedHead tied;
  if (!c.topology.tied_embeddings) return {};
  for (const ir::Module& m : c.modules) {
    if (m.path == c.topology.head) tied.head = m.part(ir::Role::code);
    if (m.kind == arch::Kind::embedding && tied.table == nullptr) tied.table = m.part(ir::Role::code);
  }
  return tied.head != nullptr && tied.table != nullptr ? tied : TiedHead{};
}

void report_tied_head(Session& s) {
  const auto [head, table] = tied_head(s.checkpoint);
  s.diag.report("tied-head-differs", {.file = s.package.file_name(head->file), .tensor = head->tensor, .module = s.checkpoint.topology.head},
                "other numbers than " + table->tensor, "the same, or tie_word_embeddings false");
}

Result<void> check_tied_head(Session& s) {
  const auto [head, table] = tied_head(s.checkpoint);
  if (head == nullptr) return {};
  QB_ASSIGN(const bool alike, begin_alike(s, *head, *table));
  if (!alike) report_tied_head(s);
  return {};
}

void check_cuts(Session& s, arch::Ranks ranks) {
  if (s.readable && ranks.count() > 1) pass::check_cuts(s.checkpoint, ranks, s.diag);
}

Result<CheckReport> check_session(Session& s, bool deep, Context& context, const Together& together) {
  CheckReport report;
  report.tensors = static_cast<int64_t>(s.package.tensors.size());
  for (const ir::Module& m : s.checkpoint.modules) report.modules += m.parts.empty() ? 0 : 1;
  for (const auto& [name, fact] : s.facts.scalars) report.bytes_read += fact.bits.size();
  if (!s.readable) return report;
  if (!deep) return report;
  QB_ASSIGN(report.bytes_read, deep_check(s, context, together));
  return report;
}

}  // namespace qb
