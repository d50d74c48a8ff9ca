// Damaged checkpoints: what `check` calls them is what their makers say they are, and converting one never does what must not be done.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "bridge/check.h"
#include "host/host.h"
#include "quantbridge/bridge.h"
#include "sha256.h"
#include "suite.h"

namespace qb::suite {
namespace {

struct Verdict {
  std::string cls = "good";
  bool errors = false;
  Diagnostics diag;
  std::string text() const {
    Outcome o;
    o.diag = diag;
    return o.text();
  }
};

// With ranks: also what is wrong when so many share the checkpoint.
Verdict check(const Fixture& f, bool deep, int64_t ranks = 1) {
  Verdict v;
  Result<Session> session = open_session(f.path);
  if (!session) {
    ADD_FAILURE() << session.error().what;
    return v;
  }
  Context context;
  context.isa = host::detect_isa();
  context.limits.threads = 2;
  const Result<CheckReport> report = check_session(*session, deep, context);
  EXPECT_TRUE(report.ok()) << report.error().what;
  check_cuts(*session, {.tp = ranks});
  v.diag = session->diag;
  v.errors = !v.diag.ok();
  if (ProblemClass worst{}; v.diag.worst(worst)) v.cls = std::string(to_string(worst));
  return v;
}

// Which cases must come out as expected: those whose container or config is the trouble, and those of formats that are supported now.
bool in_scope(const Fixture& f) {
  const std::string_view cls = string_at(f.expected, "class");
  return !f.config.is_object() || cls == "unsupported" || scope_of(f).in;
}

bool is_error(std::string_view cls) {
  return cls != "good" && cls != "suspicious";
}

// The values that an exact repair gives were computed for some.
void check_repaired(const Fixture& f, const Path& path) {
  const Json* repaired = find(f.expected, "repaired");
  if (repaired == nullptr || !repaired->is_object()) return;
  Result<Bridge> bridge = Bridge::open(path.string());
  ASSERT_TRUE(bridge.ok());
  std::set<std::string> left;
  for (auto it = repaired->begin(); it != repaired->end(); ++it) left.insert(it.key());
  const Result<void> done = bridge->for_each_tensor({.dialect = "dense", .dense_dtype = "f32"}, [&](const qb::Tensor& t) {
    const Json* want = find(*repaired, t.name);
    if (want == nullptr) return true;
    left.erase(t.name);
    EXPECT_EQ(sha256(t.bytes), (*want)["sha256"].get<std::string>()) << t.name;
    return true;
  });
  EXPECT_TRUE(done.ok()) << done.error().what;
  for (const std::string& name : left) ADD_FAILURE() << name << " did not come";
}

// What can be repaired exactly is sound when it has been written anew in its own dialect.
void check_repair(const Fixture& f) {
  Result<Session> session = open_session(f.path);
  ASSERT_TRUE(session.ok() && session->dialect != nullptr);
  Scratch scratch;
  const Outcome outcome = convert(f.path, scratch / "out", to_dialect(std::string(session->dialect->name)));
  ASSERT_TRUE(outcome.written) << outcome.text();
  for (const pass::Repaired& r : outcome.repairs) EXPECT_EQ(r.max_relative_error, 0.0) << r.code;
  const Verdict after = check(fixture_at(scratch / "out"), true);
  EXPECT_EQ(after.cls, "good") << after.text();
  check_repaired(f, scratch / "out");
}

// Numbers that only reading all of the data shows: conversions carry them on as they are.
bool is_nan(const Problem& p) {
  return p.code == "code-nan" || p.code == "scale-nan" || p.code == "weight-not-finite";
}

// Converting either works, or leaves nothing behind. Damage that cannot be repaired is never converted, and never hidden.
void check_conversion(const Fixture& f, const Verdict& quick, const Verdict& deep) {
  for (const char* to : {"dense", "modelopt", "compressed_tensors"}) {
    Scratch scratch;
    const Outcome outcome = convert(f.path, scratch / "out", to_dialect(to));
    EXPECT_EQ(outcome.written, std::filesystem::exists(scratch / "out")) << "to " << to << outcome.text();
    EXPECT_FALSE(std::filesystem::exists(scratch / "out.partial")) << "to " << to;
    bool repairable = true;
    for (const Problem& p : quick.diag.all()) repairable &= p.severity != Severity::error || p.repair == Repair::exact || carried_over(p);
    EXPECT_TRUE(repairable || !outcome.written) << "to " << to << ": written although " << quick.text();
    if (!outcome.written) {
      EXPECT_TRUE(!outcome.diag.ok() || !outcome.error.empty()) << "to " << to << ": refused without a reason";
      continue;
    }
    // What was written is sound, or has the same trouble and says so.
    const Verdict after = check(fixture_at(scratch / "out"), true);
    for (const Problem& p : after.diag.all())
      EXPECT_TRUE(p.severity != Severity::error || carried_over(p) || is_nan(p)) << "to " << to << ": wrote " << after.text();
    const auto nans = [](const Verdict& v) { return std::count_if(v.diag.all().begin(), v.diag.all().end(), is_nan); };
    EXPECT_EQ(nans(after), nans(deep)) << "to " << to << ": " << deep.text() << " became " << after.text();
  }
}

TEST(Broken, EveryCase) {
  const std::vector<Fixture> cases = fixtures("broken");
  int scoped = 0, controls = 0;
  std::printf("%-34s %-13s %-13s\n", "case", "expected", "got");
  for (const Fixture& f : cases) {
    SCOPED_TRACE(f.name);
    const std::string expected(string_at(f.expected, "class"));
    ASSERT_FALSE(expected.empty());
    const Verdict quick = check(f, false), deep = check(f, true);
    const bool scope = in_scope(f);
    // What only breaks when it is cut is good as long as nobody cuts it.
    if (const int64_t ranks = int_at(f.expected, "tp", 1); ranks > 1) {
      const Verdict cut = check(f, false, ranks);
      EXPECT_EQ(cut.cls, expected) << cut.text();
      EXPECT_EQ(deep.cls, "good") << deep.text();
      for (const Problem& p : cut.diag.all()) EXPECT_FALSE(p.module.empty()) << p.code;
      continue;
    }
    const bool right = deep.cls == expected, fits = right || (!scope && deep.cls == "unsupported");
    std::printf("%-34s %-13s %-13s %s%s\n", f.path.filename().c_str(), expected.c_str(), deep.cls.c_str(), scope ? "" : "(out of scope)", fits ? "" : " <--");
    EXPECT_TRUE(fits) << "expected " << expected << ", got " << deep.cls << deep.text();
    EXPECT_TRUE(!scope || !right || deep.errors == is_error(expected)) << deep.text();
    EXPECT_TRUE(!scope || expected != "good" || deep.diag.all().empty()) << deep.text();
    for (const Problem& p : deep.diag.all()) {
      EXPECT_FALSE(p.found.empty()) << p.code;
      EXPECT_FALSE(p.expected.empty()) << p.code;
      EXPECT_FALSE(p.action.empty()) << p.code;
    }
    check_conversion(f, quick, deep);
    // A repair that changes no dequantized value is in what is dequantized.
    if (scope && deep.cls == "repairable") check_repaired(f, f.path);
    if (scope && !string_at(f.expected, "exact_repair").empty()) check_repair(f);
    scoped += scope ? 1 : 0;
    controls += scope && expected == "good" ? 1 : 0;
  }
  std::printf("%zu cases, %d in scope, %d controls\n", cases.size(), scoped, controls);
  EXPECT_GT(scoped, 40);
  EXPECT_GE(controls, 3);
}

}  // namespace
}  // namespace qb::suite
