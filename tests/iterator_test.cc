// Taking tensors one by one gives what writing gives: names, order, dtypes, shapes and bytes. What is written does not depend on threads or memory.
#include <gtest/gtest.h>

#include <cstdio>

#include "quantbridge/bridge.h"
#include "suite.h"

namespace qb::suite {
namespace {

struct Item {
  std::string name;
  Tensor tensor;
};

// Every file of a directory, by name.
std::map<std::string, std::string> files_of(const Path& dir) {
  std::map<std::string, std::string> out;
  for (const std::filesystem::directory_entry& e : std::filesystem::recursive_directory_iterator(dir))
    if (e.is_regular_file()) out[e.path().lexically_relative(dir).string()] = read_bytes(e.path());
  return out;
}

constexpr Budget budgets[] = {{2u << 20, 1}, {2u << 20, 2}, {2u << 20, 7}, {512u << 20, 1}, {512u << 20, 2}, {512u << 20, 7}};

void same_everywhere(const Fixture& f, const Target& target) {
  SCOPED_TRACE(f.name + " to " + target.dialect + (target.scheme.empty() ? "" : " as " + target.scheme));
  Result<Bridge> bridge = Bridge::open(f.path.string());
  ASSERT_TRUE(bridge.ok()) << bridge.error().what;
  Scratch scratch;
  std::map<std::string, std::string> first;
  for (const Budget& budget : budgets) {
    SCOPED_TRACE(std::to_string(budget.threads) + " threads, " + std::to_string(budget.memory >> 20) + " MiB");
    const Path out = scratch / ("out" + std::to_string(&budget - budgets));
    const Result<void> written = bridge->write(target, out.string(), budget);
    ASSERT_TRUE(written.ok()) << written.error().what;
    std::vector<Item> taken;
    const Result<void> iterated = bridge->for_each_tensor(
        target,
        [&](const qb::Tensor& t) {
          taken.push_back({t.name, {t.dtype, {t.shape.begin(), t.shape.end()}, std::string(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size())}});
          return true;
        },
        budget);
    ASSERT_TRUE(iterated.ok()) << iterated.error().what;
    const Weights weights = read_weights(out);
    ASSERT_EQ(taken.size(), weights.order.size());
    for (size_t i = 0; i < taken.size(); ++i) {
      EXPECT_EQ(taken[i].name, weights.order[i]) << "at position " << i;
      const auto it = weights.tensors.find(taken[i].name);
      ASSERT_NE(it, weights.tensors.end()) << taken[i].name;
      EXPECT_EQ(describe(taken[i].tensor), describe(it->second)) << taken[i].name;
      EXPECT_TRUE(taken[i].tensor.bytes == it->second.bytes) << taken[i].name << ": other bytes";
    }
    const std::map<std::string, std::string> files = files_of(out);
    if (first.empty()) {
      first = files;
      continue;
    }
    EXPECT_EQ(files.size(), first.size());
    for (const auto& [name, bytes] : first) {
      const auto it = files.find(name);
      EXPECT_TRUE(it != files.end() && it->second == bytes) << name << " depends on threads or memory";
    }
  }
}

// Of sixteen inputs, as NVFP4 asks for.
bool has_whole_groups(const Session& s) {
  const auto& modules = s.checkpoint.modules;
  return std::all_of(modules.begin(), modules.end(), [](const ir::Module& m) { return m.k % 16 == 0; });
}

// One fixture of each kind and dialect, to every dialect that can say it; a base model to every scheme.
TEST(Iterator, EqualsWhatIsWritten) {
  std::set<std::string> seen;
  int runs = 0;
  for (const char* folder : {"modelopt", "compressed_tensors", "base"})
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in) continue;
      Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok()) << f.name << ": " << session.error().what;
      const std::string kind = kind_of(*session).text();
      const size_t shards = session->package.files.size();
      const bool base = std::string_view(folder) == "base";
      if (base && !has_whole_groups(*session)) continue;
      if (!seen.insert(folder + kind + (shards > 1 ? " shards" : "")).second) continue;
      if (base) {
        for (const char* scheme : {"fp8_tensor", "fp8_channel:fp8_token", "fp8_128x128:fp8_g128", "nvfp4"})
          for (const char* to : {"modelopt", "compressed_tensors"}) {
            same_everywhere(f, {.dialect = to, .scheme = scheme});
            ++runs;
          }
        continue;
      }
      for (const char* to : {"dense", "modelopt", "compressed_tensors"}) {
        Job job;
        Context context;
        Diagnostics diag;
        if (!plan_job(*session, to_dialect(to), context, job, diag)) continue;  // the other dialect cannot say it: roundtrip_test
        same_everywhere(f, {.dialect = to});
        ++runs;
      }
    }
  std::printf("%d conversions, %zu ways each\n", runs, std::size(budgets));
  EXPECT_GT(runs, 20);
}

TEST(Iterator, StopsWhenAsked) {
  for (const Fixture& f : fixtures("modelopt")) {
    if (!scope_of(f).in) continue;
    Result<Bridge> bridge = Bridge::open(f.path.string());
    ASSERT_TRUE(bridge.ok());
    int taken = 0;
    const Result<void> done = bridge->for_each_tensor({.dialect = "dense"}, [&](const qb::Tensor&) { return ++taken < 3; });
    EXPECT_TRUE(done.ok()) << f.name;
    EXPECT_EQ(taken, 3) << f.name;
    return;
  }
  FAIL() << "no fixture";
}

TEST(Iterator, RefusesWhatWriteRefuses) {
  for (const Fixture& f : fixtures("modelopt")) {
    if (scope_of(f).in) continue;
    SCOPED_TRACE(f.name);
    Result<Bridge> bridge = Bridge::open(f.path.string());
    ASSERT_TRUE(bridge.ok()) << bridge.error().what;
    EXPECT_FALSE(bridge->ok());
    int taken = 0;
    const Result<void> done = bridge->for_each_tensor({.dialect = "dense"}, [&](const qb::Tensor&) { return ++taken > 0; });
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().code, Errc::bad_input);
    EXPECT_EQ(taken, 0);
  }
}

TEST(Iterator, GivesMatricesTheFormThatIsAsked) {
  for (const Fixture& f : fixtures("base")) {
    if (f.name.find("phi3") == f.name.npos) continue;
    Result<Bridge> bridge = Bridge::open(f.path.string());
    ASSERT_TRUE(bridge.ok()) << bridge.error().what;
    Target target{.dialect = "dense", .projections = "separate"};
    std::set<std::string> names;
    const auto take = [&](const qb::Tensor& t) { return names.insert(t.name), true; };
    ASSERT_TRUE(bridge->for_each_tensor(target, take).ok());
    EXPECT_TRUE(names.contains("model.layers.0.self_attn.q_proj.weight"));
    EXPECT_FALSE(names.contains("model.layers.0.self_attn.qkv_proj.weight"));
    target.projections = "apart";
    const Result<void> refused = bridge->for_each_tensor(target, take);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().what, "projections 'apart' is not as-is, separate or fused");
  }
}

}  // namespace
}  // namespace qb::suite
