// Models that several ranks share (here: threads) against the same models on one: in reference mode the same tokens, and logits that differ where a sum of
// doubles in another order rounds to another float32. Every producer's checkpoint in scope, cut evenly and not; each rank reads its own bytes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <map>

#include "bridge/runtime.h"
#include "host/test_ranks.h"
#include "suite.h"

namespace qb {
namespace {

// Counts what is read.
class Counting final : public Source {
 public:
  explicit Counting(std::shared_ptr<Source> source) : source_(std::move(source)) {}
  uint64_t size(FileId file) const override { return source_->size(file); }
  Result<void> read(std::span<const ReadRequest> requests) override {
    for (const ReadRequest& r : requests) bytes += r.into.size();
    return source_->read(requests);
  }
  std::atomic<uint64_t> bytes{0};

 private:
  std::shared_ptr<Source> source_;
};

// What a checkpoint, or a rank's part of one, consists of.
struct Contents {
  int64_t bytes = 0;    // of the numbers that are there, each once
  int64_t asked = 0;    // of those that are read to find out what they mean: zero points, orders of groups
  int64_t weights = 0;  // in matrices that ranks cut and of which nobody has what another one has
};

Contents contents_of(const ir::Checkpoint& c, bool repeats_kv) {
  Contents out;
  std::map<std::pair<FileId, uint64_t>, int64_t> tensors;  // by where they begin: modules may share one
  const auto bytes_of = [](const ir::Stored& s) {
    int64_t numbers = 1;
    for (const size_t axis : {0, 1}) {
      const ir::View::Repeat& r = s.view.repeat[axis];
      numbers *= (s.view.dims[axis] + r.phase + r.times - 1) / r.times;
    }
    return (numbers * bits(s.elem) + 7) / 8;
  };
  for (const ir::Module& m : c.modules) {
    for (const ir::Stored& s : m.parts) {
      tensors[{s.file, s.offset}] = bytes_of(s);
      if (s.role == ir::Role::zero || s.role == ir::Role::order) out.asked += bytes_of(s);
    }
    for (const ir::Transform& t : m.transforms) tensors[{t.matrix.file, t.matrix.offset}] = bytes_of(t.matrix);
    const bool of_kv = m.path.find("k_proj") != m.path.npos || m.path.find("v_proj") != m.path.npos || m.path.find("kv_proj") != m.path.npos;
    if (m.part(ir::Role::code) == nullptr || (of_kv && repeats_kv)) continue;
    if (c.topology.modules[static_cast<size_t>(m.topology)].parallel != arch::Parallel::none) out.weights += m.n * m.k;
  }
  for (const auto& [place, bytes] : tensors) out.bytes += bytes;
  return out;
}

struct Outcome {
  std::vector<int32_t> ids;
  std::vector<float> logits;
  int64_t bytes_read = 0;
  Contents own;
  std::string refused;
};

const std::vector<int32_t> prompt{5, 17, 42, 31, 63, 7, 7, 50, 30, 12, 9};

Outcome run_on(const suite::Path& path, host::Communicator* world, arch::Ranks ranks) {
  Outcome out;
  auto session = open_session(path);
  EXPECT_TRUE(session.ok());
  if (!session) return out;
  const bool repeats_kv = session->checkpoint.topology.kv_heads < 2;
  const auto counting = std::make_shared<Counting>(session->package.source);
  session->package.source = counting;
  RuntimeOptions options;
  options.model.reference = true;
  options.model.linear.cpu = host::this_cpu();
  options.model.linear.policy.reference = true;
  options.context = 64;
  options.world = world;
  options.ranks = ranks;
  Context context;
  auto runtime = agree(world, Runtime::load(std::move(*session), options, context));
  if (!runtime) {
    out.refused = runtime.error().what;
    return out;
  }
  out.bytes_read = static_cast<int64_t>(counting->bytes);
  out.own = contents_of((*runtime)->session.checkpoint, repeats_kv);
  const std::vector<std::vector<int32_t>> chunks{prompt};
  const auto scored = engine::score(*(*runtime)->model, *(*runtime)->cache, chunks, [&out](size_t, std::span<const float> logits) {
    out.logits.assign(logits.begin(), logits.end());
    return true;
  });
  EXPECT_TRUE(scored.ok()) << scored.error().what;
  const auto generated = engine::generate(*(*runtime)->model, *(*runtime)->cache, prompt, {.max_new = 12, .ranks = world});
  EXPECT_TRUE(generated.ok()) << generated.error().what;
  if (generated) out.ids = generated->ids;
  return out;
}

// What each of them had to say.
std::vector<Outcome> run_together(const suite::Path& path, arch::Ranks ranks) {
  std::vector<Outcome> all(static_cast<size_t>(ranks.count()));
  host::run_ranks(static_cast<int>(ranks.count()), [&](host::Communicator& world) { all[static_cast<size_t>(world.rank())] = run_on(path, &world, ranks); });
  return all;
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return 1e30;
  double square = 0, total = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    square += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    total += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(square / total);
}

std::vector<suite::Fixture> in_scope() {
  std::vector<suite::Fixture> all;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq", "base"})
    for (suite::Fixture& f : suite::fixtures(folder))
      if ((std::string_view(folder) == "base" || std::filesystem::exists(f.path / "expected.logits")) && suite::scope_of(f).in) all.push_back(std::move(f));
  return all;
}

// A cut that would change what a scheme means names what is in the way.
bool is_named(const std::string& refusal) {
  return refusal.find("cut-through-block") != refusal.npos || refusal.find("share-uneven") != refusal.npos || refusal.find("cannot share") != refusal.npos;
}

// 1, or 0 where the cut is refused.
int give_the_tokens_of_one(const suite::Path& path, arch::Ranks ranks) {
  const std::vector<Outcome> all = run_together(path, ranks);
  if (!all[0].refused.empty()) {
    EXPECT_TRUE(is_named(all[0].refused)) << all[0].refused;
    return 0;
  }
  const Outcome one = run_on(path, nullptr, {});
  for (const Outcome& o : all) {
    EXPECT_EQ(o.ids, one.ids);
    EXPECT_EQ(o.logits, all[0].logits);  // the same bits on every rank
  }
  EXPECT_LE(relative_difference(all[0].logits, one.logits), 1e-6);
  return 1;
}

class SharedModel : public ::testing::TestWithParam<arch::Ranks> {};

TEST_P(SharedModel, GiveTheTokensOfOne) {
  int shared = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    const bool mixture = f.config.contains("num_local_experts") || f.config.contains("n_routed_experts") || f.config.contains("num_experts");
    if (GetParam().ep > 1 && !mixture) continue;
    shared += give_the_tokens_of_one(f.path, GetParam());
  }
  EXPECT_GT(shared, 0);
}

// Fused projections and stacked experts where they were separate, and the other way round.
TEST_P(SharedModel, GiveTheTokensOfOneInOtherForms) {
  int shared = 0;
  for (const suite::Fixture& f : in_scope()) {
    const Result<Session> session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    for (const pass::Forms& forms : suite::FormsThere(session->checkpoint.topology).others()) {
      if (GetParam().ep > 1 && forms.experts == pass::Form::as_is) continue;
      SCOPED_TRACE(fmt::format("{} {} {}", f.name, static_cast<int>(forms.projections), static_cast<int>(forms.experts)));
      suite::Scratch scratch;
      JobOptions options = suite::to_dialect(std::string(session->dialect->name));
      options.forms = forms;
      if (suite::convert(f.path, scratch / "other", options).written) shared += give_the_tokens_of_one(scratch / "other", GetParam());
    }
  }
  EXPECT_GT(shared, 0);
}
INSTANTIATE_TEST_SUITE_P(Ranks, SharedModel,
                         ::testing::Values(arch::Ranks{.tp = 2}, arch::Ranks{.tp = 3}, arch::Ranks{.ep = 2}, arch::Ranks{.ep = 3},
                                           arch::Ranks{.tp = 2, .ep = 2}, arch::Ranks{.tp = 4, .ep = 2}, arch::Ranks{.tp = 2, .ep = 4}),
                         [](const auto& of) { return fmt::format("Tp{}Ep{}", of.param.tp, of.param.ep); });

TEST(SharedWeights, RanksReadTheirOwnBytes) {
  int judged = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    const Outcome one = run_on(f.path, nullptr, {});
    const std::vector<Outcome> all = run_together(f.path, {.tp = 2});
    if (!all[0].refused.empty()) continue;
    ++judged;
    // Some numbers are read for two reasons, by one process too.
    const int64_t twice = one.bytes_read - one.own.bytes + one.own.asked;
    int64_t weights = 0;
    for (const Outcome& o : all) {
      EXPECT_LE(o.bytes_read, o.own.bytes + twice);
      // These models are so small that what all ranks have is a part to speak of (norms, routers, the one KV head of some), and that 320 words are 256 and 64.
      EXPECT_LT(o.own.bytes, one.own.bytes * 9 / 10);
      weights += o.own.weights;
    }
    EXPECT_EQ(weights, one.own.weights);
  }
  EXPECT_GT(judged, 0);
}

}  // namespace
}  // namespace qb
