// Shards: what several ranks have is the whole, bit for bit, put together by the shapes alone; or the cut is refused, with the module, what is in the way and
// the numbers of ranks that work.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cctype>
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

constexpr const char* folders[] = {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq", "base"};

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
  for (const char* folder : folders)
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

// "... --tp 1, 2, 4; or ...": the numbers behind the option.
std::set<int64_t> named_sizes(const std::string& expected, const std::string& option) {
  std::set<int64_t> out;
  const size_t at = expected.find(option + " ");
  for (size_t i = at == expected.npos ? expected.size() : at + option.size() + 1; i < expected.size() && std::isdigit(expected[i]) != 0;) {
    size_t digits = 0;
    out.insert(std::stoll(expected.substr(i), &digits));
    i += digits;
    if (expected.compare(i, 2, ", ") == 0) i += 2;
  }
  return out;
}

// The numbers of ranks that a message names are those at which nothing is said of the module: no more and no fewer.
TEST(Shards, WhatIsNamedInsteadWorks) {
  int named = 0;
  for (const char* folder : folders)
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in) continue;
      SCOPED_TRACE(f.name);
      const Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok());
      int64_t most_experts = 0;
      for (const arch::Module& m : session->checkpoint.topology.modules) most_experts = std::max(most_experts, m.experts);
      for (const bool experts : {false, true}) {
        const int64_t most = experts ? most_experts : session->checkpoint.topology.heads;
        std::map<int64_t, Diagnostics> said;
        for (int64_t n = 1; n <= most; ++n) pass::check_cuts(session->checkpoint, experts ? arch::Ranks{.ep = n} : arch::Ranks{.tp = n}, said[n]);
        for (const auto& [n, diag] : said)
          for (const Problem& p : diag.all()) {
            if (p.module.empty()) continue;
            const std::set<int64_t> sizes = named_sizes(p.expected, experts ? "--ep" : "--tp");
            EXPECT_TRUE(sizes.contains(1)) << p.expected;
            for (int64_t other = 1; other <= most; ++other) {
              const std::span<const Problem> problems = said[other].all();
              const bool quiet = std::none_of(problems.begin(), problems.end(), [&p](const Problem& q) { return q.module == p.module; });
              EXPECT_EQ(sizes.contains(other), quiet) << p.module << ", " << other << " ranks: " << p.found << "; " << p.expected;
            }
            ++named;
          }
      }
    }
  EXPECT_GT(named, 100);
}

// What a rank has does not depend on the form: of fused projections and stacked experts it is the same rows and columns, whether the whole is put into that
// form or the part.
TEST(Shards, OfOtherFormsAreTheSame) {
  int compared = 0, refused = 0;
  JobOptions apart = values_of();
  apart.forms = {pass::Form::separate, pass::Form::separate};
  for (const char* folder : folders)
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in) continue;
      const Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok());
      if (!session->readable || session->checkpoint.topology.family == nullptr) continue;
      const std::string dialect(session->dialect->name);
      for (const pass::Forms& forms : FormsThere(session->checkpoint.topology).others()) {
        SCOPED_TRACE(fmt::format("{} {} {}", f.name, static_cast<int>(forms.projections), static_cast<int>(forms.experts)));
        Scratch scratch;
        JobOptions other = to_dialect(dialect);
        other.forms = forms;
        if (!convert(f.path, scratch / "other", other).written) continue;
        if (!convert(f.path, scratch / "values", apart).written || !convert(scratch / "other", scratch / "other values", apart).written) continue;
        const Weights own = read_weights(scratch / "values"), others = read_weights(scratch / "other values");
        // What is joined does not say how its parts were spelled.
        if (!std::equal(own.tensors.begin(), own.tensors.end(), others.tensors.begin(), others.tensors.end(),
                        [](const auto& a, const auto& b) { return a.first == b.first; }))
          continue;
        for (const arch::Ranks ranks : {arch::Ranks{.tp = 2}, arch::Ranks{.ep = 2}, arch::Ranks{.tp = 4, .ep = 2}}) {
          if (ranks.ep > 1 && forms.experts == pass::Form::as_is) continue;
          const int64_t rank = ranks.count() - 1;
          SCOPED_TRACE(fmt::format("tp {} ep {}", ranks.tp, ranks.ep));
          Scratch parts;
          JobOptions joined = to_rank(dialect, ranks, rank);
          joined.forms = forms;
          if (!convert(f.path, parts / "usual", to_rank(dialect, ranks, rank)).written) continue;
          const Outcome part_of_other = convert(scratch / "other", parts / "part of other", to_rank(dialect, ranks, rank)),
                        part_as_other = convert(f.path, parts / "part as other", joined);
          ASSERT_TRUE(convert(parts / "usual", parts / "usual values", apart).written);
          for (const auto& [name, o] : {std::pair("part of other", &part_of_other), {"part as other", &part_as_other}}) {
            SCOPED_TRACE(name);
            const Outcome values = o->written ? convert(parts / name, parts / fmt::format("{} values", name), apart) : *o;
            if (!values.written) {
              // A cut may go through what lies in one word, or one block, when matrices lie below each other.
              const std::set<std::string> codes = values.codes();
              EXPECT_TRUE(codes.contains("form-inexpressible") || codes.contains("cut-through-block") || codes.contains("share-uneven") ||
                          codes.contains("scheme-inexpressible"))
                  << values.text();
              ++refused;
              continue;
            }
            same_bytes(parts / "usual values", parts / fmt::format("{} values", name));
            ++compared;
          }
        }
      }
    }
  std::printf("%d compared, %d refused\n", compared, refused);
  EXPECT_GT(compared, 20);
}

}  // namespace
}  // namespace qb::suite
