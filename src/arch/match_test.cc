#include "arch/match.h"

#include <gtest/gtest.h>

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

TEST(NameRule, PartsOfNamesAndSubtrees) {
  const auto hit = [](const char* entry, const char* path) { return NameRule::component(entry).match(path, arch::Kind::linear) != NameRule::How::no; };
  EXPECT_TRUE(hit("model.layers.*.self_attn", "model.layers.10.self_attn.q_proj"));
  EXPECT_TRUE(hit("model.layers.*.mlp.router", "model.layers.0.mlp.router"));
  EXPECT_FALSE(hit("model.layers.*.self_attn", "model.layers.0.self_attn_norm"));
  EXPECT_FALSE(hit("model.layers.*.mlp.router", "model.layers.0.mlp.experts"));
  EXPECT_TRUE(hit("lm_head", "lm_head"));
  EXPECT_TRUE(hit("model.layers.1", "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(hit("model.layers.1", "model.layers.10.mlp.up_proj"));
  EXPECT_TRUE(hit("up_proj", "model.layers.1.mlp.up_proj"));
}

class StartsWith : public Regex {
 public:
  explicit StartsWith(std::string_view text) : text_(text) {}
  bool match_prefix(std::string_view text) const override { return text.starts_with(text_); }

 private:
  std::string text_;
};
Result<std::shared_ptr<const Regex>> compile(std::string_view pattern) {
  if (pattern == "(") return Error{Errc::invalid_argument, "unbalanced"};
  return std::shared_ptr<const Regex>(std::make_shared<StartsWith>(pattern));
}

TEST(NameRule, CompressedTensorsTargets) {
  const auto how = [](const char* target, const char* path, arch::Kind kind) { return NameRule::compressed_tensors(target, compile)->match(path, kind); };
  EXPECT_EQ(how("Linear", "model.layers.0.mlp.up_proj", arch::Kind::linear), NameRule::How::class_name);
  EXPECT_EQ(how("Linear", "model.embed_tokens", arch::Kind::embedding), NameRule::How::no);
  EXPECT_EQ(how("Embedding", "model.embed_tokens", arch::Kind::embedding), NameRule::How::class_name);
  EXPECT_EQ(how("lm_head", "lm_head", arch::Kind::linear), NameRule::How::exact);
  EXPECT_EQ(how("head", "lm_head", arch::Kind::linear), NameRule::How::no);
  EXPECT_EQ(how("re:model.layers", "model.layers.3.mlp.up_proj", arch::Kind::linear), NameRule::How::pattern);
  EXPECT_FALSE(NameRule::compressed_tensors("re:(", compile));
  EXPECT_FALSE(NameRule::compressed_tensors("re:a", nullptr));
}

// What looking a rule up by name relies on: it hits its own name, and with dots what lies below it and names that end with it, nothing else.
TEST(Match, RulesThatCanBeLookedUp) {
  const std::string_view paths[] = {"lm_head", "model.layers.1", "model.layers.10.mlp.gate", "model.layers.1.mlp.gate", "gate", "mlp.gate_proj", "a.lm_head.b"};
  const auto at_dots = [](std::string_view path, std::string_view name) {
    return path == name || path.starts_with(std::string(name) + ".") || path.ends_with("." + std::string(name));
  };
  for (const std::string_view text : {"lm_head", "model.layers.1", "mlp.gate", "gate", "model"}) {
    const NameRule shell = *NameRule::shell(std::string(text)), exact = *NameRule::compressed_tensors(std::string(text), nullptr),
                   dotted = NameRule::component(std::string(text));
    EXPECT_EQ(shell.lookup(), NameRule::Lookup::name);
    EXPECT_EQ(exact.lookup(), NameRule::Lookup::name);
    EXPECT_EQ(dotted.lookup(), NameRule::Lookup::dotted);
    for (const std::string_view path : paths) {
      EXPECT_EQ(shell.match(path, arch::Kind::linear) != NameRule::How::no, path == text);
      EXPECT_EQ(exact.match(path, arch::Kind::linear) != NameRule::How::no, path == text);
      EXPECT_EQ(dotted.match(path, arch::Kind::linear) != NameRule::How::no, at_dots(path, text)) << path << " " << text;
    }
  }
  EXPECT_EQ(NameRule::shell("model.*")->lookup(), NameRule::Lookup::none);
  EXPECT_EQ(NameRule::component("model.layers.*.mlp").lookup(), NameRule::Lookup::none);
  EXPECT_EQ(NameRule::substring("gate").lookup(), NameRule::Lookup::none);
  EXPECT_EQ(NameRule::compressed_tensors("Linear", nullptr)->lookup(), NameRule::Lookup::none);
}

}  // namespace
}  // namespace qb
