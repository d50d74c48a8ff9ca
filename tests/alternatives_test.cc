// A dialect that cannot hold a checkpoint names those that can: exactly the ones for which a plan can be made.
#include <gtest/gtest.h>

#include <cstdio>

#include "suite.h"

namespace qb::suite {
namespace {

bool plans(const Session& session, const JobOptions& options, Diagnostics& diag) {
  Context context;
  Job job;
  return plan_job(session, options, context, job, diag);
}

// The dialects that all refusals name.
std::set<std::string> named(const Diagnostics& diag) {
  std::optional<std::set<std::string>> all;
  for (const Problem& p : diag.all()) {
    if (p.code != "scheme-inexpressible") continue;
    std::set<std::string> mine;
    for (const Dialect* d : dialects())
      for (const std::string_view end : {",", "."})
        for (const std::string_view begin : {": ", ", "})
          if (p.action.find(std::string(begin) + std::string(d->name) + std::string(end)) != p.action.npos) mine.insert(std::string(d->name));
    if (!all) all = mine;
    std::erase_if(*all, [&](const std::string& name) { return !mine.contains(name); });
  }
  return all.value_or(std::set<std::string>{});
}

TEST(Alternatives, AreThoseThatTakeIt) {
  int refusals = 0;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq"})
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in) continue;
      SCOPED_TRACE(f.name);
      const Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok());
      std::map<std::string, Diagnostics> refused;
      std::set<std::string> takes;
      for (const Dialect* d : dialects()) {
        if (d->write == nullptr || d->name == "dense") continue;
        Diagnostics diag;
        if (plans(*session, to_dialect(std::string(d->name)), diag))
          takes.insert(std::string(d->name));
        else if (diag.has("scheme-inexpressible"))
          refused.emplace(d->name, diag);
      }
      for (const auto& [name, diag] : refused) {
        ++refusals;
        const std::set<std::string> words = named(diag);
        for (const std::string& t : takes) EXPECT_TRUE(words.contains(t)) << name << " does not name " << t;
        // A module and a cache may be refused for reasons of their own: only where one thing is the matter must it be all.
        if (kind_of(*session).schemes.size() == 1 && kind_of(*session).kv.empty()) {
          EXPECT_EQ(words, takes) << name;
        }
      }
    }
  std::printf("%d refusals\n", refusals);
  EXPECT_GT(refusals, 20);
}

// Of weights that are quantized now, too.
TEST(Alternatives, AreNamedBeforeAnythingIsMade) {
  for (const Fixture& f : fixtures("base")) {
    if (f.name != "base/llama_small") continue;
    const Result<Session> session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    JobOptions options = to_dialect("hf_fp8");
    options.quantize = *pass::quantize_options("int4_g128", "", "", options.to);
    Diagnostics diag;
    EXPECT_FALSE(plans(*session, options, diag));
    EXPECT_EQ(named(diag), (std::set<std::string>{"awq", "compressed_tensors", "gptq", "modelopt"}));
    options.quantize = *pass::quantize_options("int4_g128_asym", "", "", options.to);
    Diagnostics asym;
    EXPECT_FALSE(plans(*session, options, asym));
    EXPECT_EQ(named(asym), (std::set<std::string>{"awq", "compressed_tensors", "gptq"}));
    return;
  }
  GTEST_FAIL() << "no base/llama_small";
}

}  // namespace
}  // namespace qb::suite
