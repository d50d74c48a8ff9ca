#include "text/chat.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "base/json.h"

namespace qb::text {
namespace {

std::string file(const std::string& name) {
  std::ifstream in(QB_TEST_DATA "/text/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Json parsed(std::string_view text) {
  Json out;
  JsonError error;
  EXPECT_TRUE(parse_json(text, out, error, 200)) << error.what;
  return out;
}

Result<std::string> render(std::string_view source, const Json& variables = Json::object()) {
  auto t = ChatTemplate::parse(source);
  if (!t) return t.error();
  return t->render(variables);
}

TEST(chat, agrees_with_jinja2) {
  const Json recorded = parsed(file("chat_cases.json"));
  size_t texts = 0;
  size_t errors = 0;
  for (const Json& c : *find(recorded, "cases")) {
    std::string source(string_at(c, "template"));
    if (source.ends_with(".jinja")) source = file("templates/" + source);
    const Json* variables = find(c, "variables");
    const auto text = render(source, variables != nullptr ? *variables : *find(recorded, "variables"));
    const Json& output = *find(c, "output");
    if (output.is_null()) {
      EXPECT_FALSE(text.ok()) << source << "\ngave: " << *text;
      ++errors;
    } else {
      ASSERT_TRUE(text.ok()) << source << "\n" << text.error().what;
      EXPECT_EQ(*text, output.get<std::string>()) << source;
      ++texts;
    }
  }
  EXPECT_GT(texts, 400U);
  EXPECT_GT(errors, 50U);
}

TEST(chat, refuses_by_name_and_line) {
  struct Case {
    const char* source;
    const char* says;
  };
  for (const Case& c :
       {Case{"a\n{% include 'x' %}", "line 2: the statement 'include'"}, Case{"{% nosuch %}", "'nosuch'"}, Case{"{{ 1|wordcount }}", "'wordcount'"},
        Case{"{{ 1 is sameas 1 }}", "'sameas'"}, Case{"{{ cycler(1) }}", "'cycler'"}, Case{"{{ 'a'.zfill(3) }}", "'zfill'"},
        Case{"{{ [1].append(2) }}", "'append'"}, Case{"{{ 'a'.__class__ }}", "'__class__'"}, Case{"{% for i in [] recursive %}{% endfor %}", "recursive"},
        Case{"{{ f(*x) }}", "star"}, Case{"{{ '\xC3\x9F'|upper }}", "case"}, Case{"{{ x.y }}", "'x' is undefined"},
        Case{"{{ raise_exception('only users') }}", "only users"}, Case{"{{ [1]|map('string') }}", "generator"}, Case{"{{ self }}", "'self'"}}) {
    const auto text = render(c.source);
    ASSERT_FALSE(text.ok()) << c.source;
    EXPECT_NE(text.error().what.find(c.says), std::string::npos) << c.source << ": " << text.error().what;
  }
  EXPECT_FALSE(render("a\xFF").ok());
  EXPECT_FALSE(render("a", parsed("[]")).ok());
}

TEST(chat, hostile_templates_end_soon) {
  const auto repeated = [](std::string_view s, size_t n) {
    std::string out;
    while (n-- > 0) out += s;
    return out;
  };
  for (const std::string& source :
       {"{{ " + repeated("(", 100000), "{{ " + repeated("[", 100000), "{{ 1" + repeated("+1", 100000) + " }}", "{{ a" + repeated(".b", 100000) + " }}",
        "{{ " + repeated("not ", 100000) + "1 }}", "{{ " + repeated("-", 100000) + "1 }}", repeated("{% if 1 %}", 100000),
        "{{ 1" + repeated("|abs", 100000) + " }}", std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        std::string("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        std::string("{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"),
        std::string("{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}"),
        std::string(
            "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}"),
        std::string("{{ 'a' * 99999999999 }}"), std::string("{{ 'aaaa'.replace('', 'b' * 60000000).replace('', 'c' * 60000000) }}"),
        std::string("{{ ''|indent(999999999999) }}"), std::string("{{ 7 ** 99999999999 }}"), std::string("{{ -9223372036854775807 - 2 }}"),
        std::string("{{ range(0, 9223372036854775807) }}")}) {
    EXPECT_FALSE(render(source).ok()) << source.substr(0, 80);
  }
}

TEST(chat, a_template_renders_again_and_again) {
  const auto t = ChatTemplate::parse("{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{% endfor %}{{ n.i }}");
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(*t->render(parsed(R"({"messages": [1, 2]})")), "2");
  EXPECT_EQ(*t->render(parsed(R"({"messages": [1, 2, 3]})")), "3");
}

TEST(chat, the_clock) {
  const auto year = render("{{ strftime_now('%Y') }}");
  ASSERT_TRUE(year.ok()) << year.error().what;
  EXPECT_EQ(year->size(), 4U);
  EXPECT_FALSE(render("{{ strftime_now('%f') }}").ok());
}

}  // namespace
}  // namespace qb::text
