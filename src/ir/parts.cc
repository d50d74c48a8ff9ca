#include "ir/parts.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "ir/region.h"
#include "ir/stack.h"

namespace qb::ir {
namespace {

// Rows of a matrix that consists of these modules, one below the other; nothing where it has not as many.
std::vector<Region> below_each_other(const Module& m, const std::vector<arch::Module>& parts, size_t count) {
  std::vector<Region> out;
  int64_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    Region g = all_of(m);
    g.rows = {{at, at + parts[i].n}};
    at += parts[i].n;
    out.push_back(std::move(g));
  }
  if (at != m.n) out.clear();
  return out;
}

// In the way of cutting it so; empty: nothing.
std::string in_the_way(const Module& m, const std::vector<Region>& regions) {
  if (regions.empty()) return fmt::format("{} rows, which are not those of its parts", m.n);
  const Grain grain = grain_of(m, 0);
  for (const Region& g : regions)
    for (const int64_t at : {g.rows.front().begin, g.rows.front().end})
      if (at != 0 && at != m.n && (grain.exact == 0 || at % grain.exact != 0)) return grain.by;
  return {};
}

std::optional<Module> rows_of(const Module& m, const std::vector<Region>& regions, size_t part) {
  if (!in_the_way(m, regions).empty()) return std::nullopt;
  return region_of(m, regions[part], common_block(m, regions));
}

// Modules of each expert in a stack; 0 where it is no stack of such experts.
size_t each_of(const Module& m, const arch::Module& t) {
  const int64_t experts = m.stack.experts;
  if (experts <= 0 || experts != t.experts || t.parts.size() % static_cast<size_t>(experts) != 0) return 0;
  return t.parts.size() / static_cast<size_t>(experts);
}

// Whether every so-manieth output of an expert can be taken by itself.
bool takes_turns(const Module& m, int64_t each) {
  const int64_t outputs = m.stack.inputs_first ? m.k : m.n / m.stack.experts;
  const int32_t share = m.scheme ? m.scheme->weight.block.rows : 1;  // outputs with one scale
  return outputs % each == 0 && (share <= 1 || share % each == 0);
}

}  // namespace

Stored joined(std::vector<Stored> parts, Join join) {
  Stored s = parts.front();
  s.view = {.dims = s.view.dims};
  s.view.dims[join.along] = 0;
  for (const Stored& part : parts) s.view.dims[join.along] += part.view.dims[join.along];
  s.mask = {};
  s.value.reset();
  s.deviation.clear();
  s.origin.clear();
  s.shape.clear();
  s.times = 1;
  s.plus = 0;
  s.by.clear();
  s.joined = std::move(parts);
  s.join = join;
  return s;
}

void rename(Module& m, const std::string& path) {
  m.path = path;
  for (Stored& s : m.parts) {
    if (s.view.dims != std::array<int64_t, 2>{1, 1}) {
      s.deviation.clear();
      s.origin.clear();
    }
    const bool weight = s.role == Role::code && !m.scheme;
    if (!weight && s.role != Role::bias) continue;
    s.as = tensor_name(m, weight ? "weight" : "bias");
    if (m.stack.experts == 0) s.shape = weight ? std::vector{m.n, m.k} : std::vector{m.n};
  }
}

std::string inseparable_by(const Module& m, const arch::Module& t) {
  if (m.make || t.parts.empty()) return "a weight that is made of others";
  if (t.kind != arch::Kind::expert) return in_the_way(m, below_each_other(m, t.parts, t.parts.size()));
  const size_t each = each_of(m, t);
  if (each == 0) return fmt::format("{} experts, of which config.json says {}", m.stack.experts, t.experts);
  if (t.interleaved && !takes_turns(m, static_cast<int64_t>(each))) return fmt::format("blocks of {} outputs", m.scheme ? m.scheme->weight.block.rows : 1);
  if (t.interleaved || each == 1) return {};
  const Module one = expert_of(m, 0);
  return in_the_way(one, below_each_other(one, t.parts, each));
}

std::optional<Module> part_of(const Module& m, const arch::Module& t, size_t part) {
  if (m.make || part >= t.parts.size()) return std::nullopt;
  std::optional<Module> out;
  if (t.kind != arch::Kind::expert) {
    out = rows_of(m, below_each_other(m, t.parts, t.parts.size()), part);
  } else if (const size_t each = each_of(m, t); each > 0) {
    const auto expert = static_cast<int64_t>(part / each);
    if (t.interleaved) {
      if (takes_turns(m, static_cast<int64_t>(each))) out = expert_of(m, expert, static_cast<int64_t>(part % each), static_cast<int64_t>(each));
    } else {
      out = expert_of(m, expert);
      if (each > 1) out = rows_of(*out, below_each_other(*out, t.parts, each), part % each);
    }
  }
  if (!out) return std::nullopt;
  out->kind = t.parts[part].kind;
  out->topology = -1;
  rename(*out, t.parts[part].path);
  if (t.kind == arch::Kind::expert)
    for (Stored& s : out->parts)
      if (s.role == Role::code || s.role == Role::scale) s.shape = s.role == Role::code && !out->scheme ? std::vector{out->n, out->k} : std::vector<int64_t>{};
  return out;
}

}  // namespace qb::ir
