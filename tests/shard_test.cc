// Shards: what several ranks have is the whole, bit for bit, put together by the shapes alone; or the cut is refused, with the module, what is in the way and
// the numbers of ranks that work.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "arch/parallel.h"
#include "bridge/check.h"
#include "pass/shard.h"
#include "suite.h"

namespace qb::suite {
namespace {

using Shape = std::vector<int64_t>;

// A tensor as [outer, along, inner] with regard to one axis.
struct Blocks {
  size_t outer = 1, along = 1, inner = 1;
};
Blocks around(const Tensor& t, size_t axis) {
  Blocks b;
  for (size_t i = 0; i < t.shape.size(); ++i) (i < axis ? b.outer : i == axis ? b.along : b.inner) *= static_cast<size_t>(t.shape[i]);
  b.inner *= t.bytes.size() / std::max<size_t>(b.outer * b.along * b.inner, 1);
  return b;
}

// Elements [begin, begin + count) of an axis.
std::string slice(const Tensor& t, size_t axis, size_t begin, size_t count) {
  const Blocks b = around(t, axis);
  std::string out;
  for (size_t o = 0; o < b.outer; ++o) out += t.bytes.substr((o * b.along + begin) * b.inner, count * b.inner);
  return out;
}

// In how many parts an axis of the whole is cut, where several matrices lie in one: q, k and v, gate and up.
std::vector<size_t> widths(const Fixture& f, const std::string& name, size_t size) {
  if (name.find("qkv_proj") != name.npos) {
    const auto heads = f.config["num_attention_heads"].get<size_t>(), kv = f.config["num_key_value_heads"].get<size_t>();
    const size_t each = size / (heads + 2 * kv);
    return {heads * each, kv * each, kv * each};
  }
  if (name.find("gate_up_proj") != name.npos && f.name.find("phi3") != f.name.npos) return {size / 2, size / 2};
  return {size};
}

// Every element of a rank's tensor stands in the whole at the place that its rank says, and all of the whole is there.
void expect_parts(const Fixture& f, const std::string& name, const Tensor& whole, const std::vector<const Tensor*>& parts) {
  SCOPED_TRACE(name);
  const Tensor& first = *parts.front();
  ASSERT_EQ(first.shape.size(), whole.shape.size());
  size_t axis = whole.shape.size();
  for (size_t i = 0; i < whole.shape.size(); ++i)
    if (first.shape[i] != whole.shape[i]) axis = std::min(axis, i);
  if (axis == whole.shape.size()) {  // every rank has all of it
    for (const Tensor* p : parts) EXPECT_TRUE(*p == whole) << describe(*p);
    return;
  }
  const auto all = static_cast<size_t>(whole.shape[axis]), ranks = parts.size();
  const std::vector<size_t> matrices = widths(f, name, all);
  std::vector<size_t> done(ranks, 0);
  size_t at = 0;
  for (size_t i = 0; i < matrices.size(); ++i) {
    size_t reached = 0;
    for (size_t r = 0; r < ranks; ++r) {
      const auto own = static_cast<size_t>(parts[r]->shape[axis]);
      const size_t q = matrices[0] / ranks;
      const size_t mine = matrices.size() == 1 ? own : matrices.size() == 2 ? own / 2 : i == 0 ? q : (own - q) / 2;
      // Shares are equal, the last one of a vocabulary shorter; fewer KV heads than ranks are repeated.
      const size_t share = r == 0 ? mine : std::max(mine, (matrices[i] + ranks - 1) / ranks), repeats = std::max<size_t>(share * ranks / matrices[i], 1);
      const size_t begin = repeats > 1 ? r / repeats * share : r * share;
      ASSERT_LE(begin + mine, matrices[i]) << "rank " << r;
      EXPECT_TRUE(slice(*parts[r], axis, done[r], mine) == slice(whole, axis, at + begin, mine)) << "rank " << r << " " << describe(*parts[r]);
      done[r] += mine;
      reached = std::max(reached, begin + mine);
    }
    EXPECT_EQ(reached, matrices[i]);
    at += matrices[i];
  }
  for (size_t r = 0; r < ranks; ++r) EXPECT_EQ(done[r], static_cast<size_t>(parts[r]->shape[axis])) << "rank " << r;
}

JobOptions to_rank(std::string dialect, arch::Ranks ranks, int64_t rank) {
  JobOptions o = to_dialect(std::move(dialect));
  o.ranks = ranks;
  o.rank = rank;
  return o;
}

JobOptions values_of() {
  JobOptions o = to_dialect("dense");
  o.stored = true;
  o.dense_dtype = Elem::f32;
  return o;
}

struct Count {
  int whole = 0, refused = 0, smaller = 0;
};

// A refusal names a module, what is in the way, and numbers of ranks.
void expect_reasons(const Outcome& o) {
  EXPECT_FALSE(o.diag.ok());
  for (const Problem& p : o.diag.all()) {
    if (p.severity != Severity::error) continue;
    if (p.code == "scheme-inexpressible") continue;  // smaller blocks that the dialect has no word for; the cut is named beside it
    EXPECT_TRUE(p.code == "share-uneven" || p.code == "cut-through-block") << o.text();
    EXPECT_FALSE(p.module.empty() && p.file.empty()) << o.text();
    EXPECT_TRUE(p.file == "config.json" || p.expected.find("--tp") != p.expected.npos || p.expected.find("--ep") != p.expected.npos) << o.text();
  }
}

void share(const Fixture& f, const Weights& whole, arch::Ranks ranks, Count& count) {
  SCOPED_TRACE(fmt::format("{} tp {} ep {}", f.name, ranks.tp, ranks.ep));
  Scratch scratch;
  const Result<Session> session = open_session(f.path);
  ASSERT_TRUE(session.ok());
  const std::string dialect(session->dialect->name);
  std::vector<Weights> parts;
  for (int64_t rank = 0; rank < ranks.count(); ++rank) {
    const Path out = scratch / fmt::format("rank{}", rank), dense = scratch / fmt::format("dense{}", rank);
    const Outcome o = convert(f.path, out, to_rank(dialect, ranks, rank));
    if (!o.written) {
      EXPECT_EQ(rank, 0) << "rank 0 was written, and this one not" << o.text();
      expect_reasons(o);
      ++count.refused;
      return;
    }
    const Outcome v = convert(out, dense, values_of());
    ASSERT_TRUE(v.written) << "a rank's part is a checkpoint of its own" << v.text();
    parts.push_back(read_weights(dense));
    EXPECT_EQ(read_document(out / "config.json")["quantbridge_shard"]["rank"], rank);
    if (rank == 0)
      for (const Problem& p : o.diag.all()) count.smaller += p.code == "cut-through-block" ? 1 : 0;
  }
  for (const auto& [name, tensor] : whole.tensors) {
    std::vector<const Tensor*> have;
    for (const Weights& w : parts)
      if (const auto it = w.tensors.find(name); it != w.tensors.end()) have.push_back(&it->second);
    ASSERT_FALSE(have.empty()) << name << " is nowhere";
    ASSERT_TRUE(have.size() == parts.size() || ranks.ep > 1) << name;
    expect_parts(f, name, tensor, have);
  }
  ++count.whole;
}

TEST(Shards, AreTheWholeBitForBit) {
  Count count;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq"})
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in) continue;
      Scratch scratch;
      const Outcome v = convert(f.path, scratch / "whole", values_of());
      ASSERT_TRUE(v.written) << f.name << v.text();
      const Weights whole = read_weights(scratch / "whole");
      for (const int64_t tp : {2, 3, 4, 8}) share(f, whole, {.tp = tp}, count);
      const bool experts = f.config.contains("num_experts") || f.config.contains("num_local_experts") || f.config.contains("n_routed_experts");
      for (const int64_t ep : {2, 4})
        if (experts) share(f, whole, {.ep = ep}, count);
      if (experts) share(f, whole, {.tp = 2, .ep = 2}, count);
    }
  std::printf("%d shared, %d of them with smaller blocks, %d refused\n", count.whole, count.smaller, count.refused);
  EXPECT_GT(count.whole, 20);
}

}  // namespace
}  // namespace qb::suite
