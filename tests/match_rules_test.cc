// Lists of module names mean here what they mean to the libraries that wrote them: their answers, recorded by tools/conformance/match_rules.py, given again.
// Where we answer otherwise on purpose, `on_purpose` says why.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>

#include "arch/match.h"
#include "base/json.h"
#include "host/host.h"
#include "suite.h"

namespace qb::suite {
namespace {

struct Named {
  std::string path;
  arch::Kind kind = arch::Kind::linear;
};

struct Answers {
  std::vector<Named> modules;
  Json libraries;
};

const Answers& answers() {
  static const Answers all = [] {
    Answers a;
    const Json document = Json::parse(read_bytes(std::filesystem::path(QB_TEST_DATA) / "match/answers.json"));
    for (const Json& m : document["modules"]) a.modules.push_back({m[0], m[1] == "Embedding" ? arch::Kind::embedding : arch::Kind::linear});
    a.libraries = document["libraries"];
    return a;
  }();
  return all;
}

using Rule = std::function<Result<NameRule>(const std::string&)>;

std::vector<NameRule> rules_of(const Json& list, const Rule& rule) {
  std::vector<NameRule> out;
  for (const Json& e : list) {
    Result<NameRule> r = rule(e.get<std::string>());
    EXPECT_TRUE(r.ok()) << e;
    if (r) out.push_back(std::move(*r));
  }
  return out;
}

// Asks about every module of every case of a library; `position` gives that of the rule or group that decides.
void replay(const std::string& library, const std::function<size_t(const Json& c, const Named& m)>& position,
            const std::function<bool(const Json& c, const Named& m)>& on_purpose) {
  ASSERT_TRUE(answers().libraries.contains(library));
  for (const Json& c : answers().libraries[library]["cases"]) {
    const auto want = c["answers"].get<std::string>();
    ASSERT_EQ(want.size(), answers().modules.size());
    for (size_t i = 0; i < want.size(); ++i) {
      const Named& m = answers().modules[i];
      if (want[i] == '?') continue;
      const size_t at = position(c, m);
      const char got = at == RuleList::none ? '-' : want[i] == '+' ? '+' : "0123456789"[std::min<size_t>(at, 9)];
      if (on_purpose(c, m)) {
        EXPECT_NE(got, want[i]) << "no difference is left: " << m.path << " of " << c;
        continue;
      }
      EXPECT_EQ(got, want[i]) << m.path << " of " << c;
    }
  }
}

bool never(const Json&, const Named&) {
  return false;
}

Result<NameRule> target(const std::string& text) {
  return NameRule::compressed_tensors(text, host::compile_regex);
}

TEST(MatchRules, CompressedTensors) {
  replay(
      "compressed-tensors",
      [](const Json& c, const Named& m) {
        if (RuleList(rules_of(c["ignore"], target)).first(m.path, m.kind) != RuleList::none) return RuleList::none;
        std::vector<NameRule> targets;
        std::vector<size_t> group_of;
        for (size_t g = 0; g < c["groups"].size(); ++g)
          for (NameRule& rule : rules_of(c["groups"][g], target)) {
            targets.push_back(std::move(rule));
            group_of.push_back(g);
          }
        const size_t best = RuleList(std::move(targets)).best(m.path, m.kind);
        return best == RuleList::none ? best : group_of[best];
      },
      never);
}

size_t first_of(const Json& c, const Named& m, const Rule& rule) {
  return RuleList(rules_of(c["rules"], rule)).first(m.path, m.kind);
}

// transformers takes each entry for a regex, in which a dot is any character; people write names, and theirs is a dot.
bool dot_is_any(const Json& c, const Named& m) {
  bool hit = false, as_regex = false;
  for (const Json& e : c["rules"]) {
    const auto text = e.get<std::string>();
    hit |= NameRule::transformers(text, host::compile_regex).match(m.path, m.kind) != NameRule::How::no;
    if (Result<std::shared_ptr<const Regex>> regex = host::compile_regex(text)) as_regex |= (*regex)->match_prefix(m.path);
  }
  return as_regex && !hit;
}

TEST(MatchRules, Transformers) {
  const Rule rule = [](const std::string& text) { return Result<NameRule>(NameRule::transformers(text, host::compile_regex)); };
  replay(
      "transformers", [&](const Json& c, const Named& m) { return first_of(c, m, rule); }, dot_is_any);
}

Result<NameRule> signed_rule(const std::string& text) {
  return NameRule::signed_regex(text, host::compile_regex);
}

// GPTQModel brings a PCRE2 of its own, in which {,n} stands for itself; in Python's re, which others read the same rules with, it is {0,n}.
bool counts_from_zero(const Json& c, const Named& m) {
  const size_t at = first_of(c, m, signed_rule);
  return at != RuleList::none && c["rules"][at].get<std::string>().find("{,") != std::string::npos;
}

TEST(MatchRules, GptqModel) {
  replay(
      "gptqmodel", [](const Json& c, const Named& m) { return first_of(c, m, signed_rule); }, counts_from_zero);
}

TEST(MatchRules, AutoAwq) {
  const Rule rule = [](const std::string& text) { return Result<NameRule>(NameRule::substring(text)); };
  replay(
      "autoawq", [&](const Json& c, const Named& m) { return first_of(c, m, rule); }, never);
}

// ModelOpt's export writes "X.*" where X itself is one of the modules that it leaves out, and its wildcards, which are quantizers', do not hit X.
bool below_itself(const Json& c, const Named& m) {
  if (c.contains("exported")) return false;
  const auto hits = [&](const Json& e) { return shell_match(e.get<std::string>(), m.path); };
  const Json& rules = c["rules"];
  return std::find(rules.begin(), rules.end(), Json(m.path + ".*")) != rules.end() && std::none_of(rules.begin(), rules.end(), hits);
}

TEST(MatchRules, ModelOpt) {
  const Rule rule = [](const std::string& text) { return NameRule::shell(text); };
  replay(
      "nvidia-modelopt", [&](const Json& c, const Named& m) { return first_of(c, m, rule); }, below_itself);
}

}  // namespace
}  // namespace qb::suite
