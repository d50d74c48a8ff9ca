#include "arch/match.h"

#include <gtest/gtest.h>

#include <functional>

namespace qb {
namespace {

// Answers as Python's fnmatch.fnmatchcase gives them.
TEST(ShellMatch, AnswersAsFnmatchDoes) {
  struct Case {
    const char *pattern, *name;
    bool hit;
  };
  for (const Case& c : {Case{"lm_head", "lm_head", true},
                        {"lm_head", "lm_head2", false},
                        {"*", "", true},
                        {"*", "a.b", true},
                        {"model.layers.0.self_attn*", "model.layers.0.self_attn.q_proj", true},
                        {"model.layers.1.*", "model.layers.10.mlp", false},
                        {"*.attn.*", "model.attn.q", true},
                        {"*q?proj", "x.q_proj", true},
                        {"[abc]x", "bx", true},
                        {"[!abc]x", "bx", false},
                        {"[a-c]x", "bx", true},
                        {"[]x]y", "]y", true},
                        {"[x", "[x", true},
                        {"a*b*c", "aXbYbZc", true},
                        {"a*b*c", "aXbYbZ", false},
                        {"", "", true},
                        {"", "a", false},
                        {"**a", "bba", true},
                        {"?", "", false},
                        {"[!]a]", "b", true},
                        {"[!]a]", "]", false}})
    EXPECT_EQ(shell_match(c.pattern, c.name), c.hit) << c.pattern << " on " << c.name;
}

TEST(ShellMatch, ManyStarsStayFast) {
  const std::string name(2000, 'a');
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "a*";
  EXPECT_FALSE(shell_match(pattern + "b", name));
}

TEST(NameRule, ModelOptEntries) {
  const auto hit = [](const char* entry, const char* path) { return NameRule::shell(entry)->match(path, arch::Kind::linear) != NameRule::How::no; };
  EXPECT_TRUE(hit("model.layers.0.mlp.*", "model.layers.0.mlp.gate_proj"));
  EXPECT_TRUE(hit("model.layers.0.mlp.*", "model.layers.0.mlp"));
  EXPECT_FALSE(hit("mlp.gate", "model.layers.0.mlp.gate_proj"));
  EXPECT_FALSE(hit("model.layers.1", "model.layers.10"));
}

class StartsWith : public Regex {
 public:
  explicit StartsWith(std::string_view text) : text_(text) {}
  bool match_prefix(std::string_view text) const override { return text.starts_with(text_); }

 private:
  std::string text_;
};
Result<std::shared_ptr<const Regex>> compile(std::string_view pattern) {
  if (pattern == "(" || pattern.starts_with("*")) return Error{Errc::invalid_argument, "unbalanced"};
  return std::shared_ptr<const Regex>(std::make_shared<StartsWith>(pattern));
}

// As transformers' should_convert_module answers, whose entries are regexes from the start of a name, or its last characters.
TEST(NameRule, ModulesNotToConvert) {
  const auto hit = [](const char* entry, const char* path) {
    return NameRule::transformers(entry, compile).match(path, arch::Kind::linear) != NameRule::How::no;
  };
  EXPECT_TRUE(hit("lm_head", "lm_head"));
  EXPECT_TRUE(hit("model.layers.1", "model.layers.1.mlp.up_proj"));
  EXPECT_TRUE(hit("model.layers.1", "model.layers.10.mlp.up_proj"));
  EXPECT_TRUE(hit("up_proj", "model.layers.1.mlp.up_proj"));
  EXPECT_TRUE(hit("gate", "model.layers.1.mlp.shared_expert_gate"));
  EXPECT_FALSE(hit("layers.1", "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(hit("shared_expert.gate", "shared_expert_gate"));  // a dot is a dot
}

TEST(NameRule, EntriesThatAreNoRegexAreShellPatternsOfSubtrees) {
  const auto hit = [](const char* entry, const char* path) {
    return NameRule::transformers(entry, compile).match(path, arch::Kind::linear) != NameRule::How::no;
  };
  EXPECT_TRUE(hit("*.self_attn", "model.layers.10.self_attn.q_proj"));
  EXPECT_TRUE(hit("*.mlp.router", "model.layers.0.mlp.router"));
  EXPECT_FALSE(hit("*.self_attn", "model.layers.0.self_attn_norm"));
  EXPECT_FALSE(hit("*.mlp.router", "model.layers.0.mlp.experts"));
}

TEST(NameRule, CompressedTensorsTargets) {
  const auto how = [](const char* target, const char* path, arch::Kind kind) { return NameRule::compressed_tensors(target, compile)->match(path, kind); };
  EXPECT_EQ(how("Linear", "model.layers.0.mlp.up_proj", arch::Kind::linear), NameRule::How::class_name);
  EXPECT_EQ(how("Linear", "model.embed_tokens", arch::Kind::embedding), NameRule::How::no);
  EXPECT_EQ(how("Embedding", "model.embed_tokens", arch::Kind::embedding), NameRule::How::class_name);
  EXPECT_EQ(how("Module", "model.embed_tokens", arch::Kind::embedding), NameRule::How::class_name);
  EXPECT_EQ(how("lm_head", "lm_head", arch::Kind::linear), NameRule::How::exact);
  EXPECT_EQ(how("head", "lm_head", arch::Kind::linear), NameRule::How::no);
  EXPECT_EQ(how("re:model.layers", "model.layers.3.mlp.up_proj", arch::Kind::linear), NameRule::How::pattern);
  EXPECT_FALSE(NameRule::compressed_tensors("re:(", compile));
  EXPECT_FALSE(NameRule::compressed_tensors("re:a", nullptr));
}

// Looking rules up by name finds what asking each of them finds.
TEST(RuleList, TheFirstThatHits) {
  const std::string_view paths[] = {"lm_head", "model.layers.1", "model.layers.10.mlp.gate", "model.layers.1.mlp.gate", "gate", "mlp.gate_proj", "a.lm_head.b"};
  const std::vector<std::string> texts = {"mlp.gate", "lm_head", "model.layers.1*", "gate", "model.layers.1", "model", "gate", "proj", "b"};
  const auto make = [&](const std::function<NameRule(const std::string&)>& rule) {
    std::vector<NameRule> rules;
    for (const std::string& t : texts) rules.push_back(rule(t));
    return rules;
  };
  for (const std::vector<NameRule>& rules :
       {make([](const std::string& t) { return *NameRule::shell(t); }), make([](const std::string& t) { return *NameRule::compressed_tensors(t, compile); }),
        make([](const std::string& t) { return NameRule::transformers(t, compile); }), make([](const std::string& t) { return NameRule::substring(t); })}) {
    const RuleList list(rules);
    for (const std::string_view path : paths) {
      size_t want = 0;
      while (want < rules.size() && rules[want].match(path, arch::Kind::linear) == NameRule::How::no) ++want;
      EXPECT_EQ(list.first(path, arch::Kind::linear), want == rules.size() ? RuleList::none : want) << path;
    }
  }
}

// As compressed-tensors orders the targets that match a module.
TEST(RuleList, TheBestTarget) {
  std::vector<NameRule> rules;
  for (const char* t : {"Linear", "re:model.layers", "re:model", "model.layers.0.q", "Linear"}) rules.push_back(*NameRule::compressed_tensors(t, compile));
  const RuleList list(std::move(rules));
  EXPECT_EQ(list.best("model.layers.0.q", arch::Kind::linear), 3U);
  EXPECT_EQ(list.best("model.layers.0.k", arch::Kind::linear), 2U);
  EXPECT_EQ(list.best("lm_head", arch::Kind::linear), 4U);  // a target of two groups is the later one's
  EXPECT_EQ(list.best("embed", arch::Kind::embedding), RuleList::none);
}

}  // namespace
}  // namespace qb
