#include "base/diagnostics.h"

#include <gtest/gtest.h>

#include <set>

#include "base/utf8.h"

namespace qb {
namespace {

TEST(Problems, TableIsSound) {
  std::set<std::string_view> codes;
  for (const ProblemKind& kind : problem_kinds()) {
    EXPECT_TRUE(codes.insert(kind.code).second) << kind.code << " twice";
    EXPECT_EQ(kind.code.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-"), std::string_view::npos) << kind.code;
    for (std::string_view text : {kind.meaning, kind.engines, kind.action}) {
      if (text == "-" && text.data() == kind.engines.data()) continue;  // no engine meets it
      EXPECT_TRUE(text.ends_with('.')) << kind.code << ": " << text;
    }
    EXPECT_EQ(find_problem_kind(kind.code), &kind);
  }
  EXPECT_EQ(find_problem_kind("no-such-code"), nullptr);
}

TEST(Diagnostics, ReportsByTheTable) {
  Diagnostics diag;
  ProblemClass worst{};
  EXPECT_TRUE(diag.ok());
  EXPECT_FALSE(diag.worst(worst));
  diag.report("modules-by-structure", {.file = "f"}, "two modules", "none").severity = Severity::note;
  EXPECT_TRUE(diag.ok() && !diag.worst(worst));
  diag = {};
  diag.report("dtype-unknown", {.file = "f", .tensor = "t"}, "F8_E3M4", "a dtype");
  EXPECT_FALSE(diag.ok());
  ASSERT_TRUE(diag.worst(worst));
  EXPECT_EQ(worst, ProblemClass::unsupported);
  diag.report("tensor-hole", {.file = "f"}, "8 bytes", "none");
  ASSERT_TRUE(diag.worst(worst));
  EXPECT_EQ(worst, ProblemClass::damaged);
  EXPECT_TRUE(diag.has("tensor-hole"));
  EXPECT_FALSE(diag.has("tensor-overlap"));
  EXPECT_EQ(diag.all()[0].file, "f");
  EXPECT_EQ(diag.all()[0].tensor, "t");
  EXPECT_FALSE(diag.all()[0].action.empty());
  EXPECT_EQ(to_string(diag.all()[0].severity), "error");
}

TEST(DiagnosticsDeathTest, UnknownCodeAborts) {
  Diagnostics diag;
  EXPECT_DEATH(diag.report("no-such-code", {}, "", ""), "no-such-code");
}

TEST(Escape, MakesBytesSafeToPrint) {
  EXPECT_EQ(escape("model.layers.0"), "model.layers.0");
  EXPECT_EQ(escape("größe 模型"), "größe 模型");
  EXPECT_EQ(escape("a\x1B[31mb\n"), "a\\x1B[31mb\\x0A");
  EXPECT_EQ(escape("\xC3\x28"), "\\xC3(");
  EXPECT_EQ(escape("\xC2\x9B"), "\\xC2\\x9B") << "C1 control";
  EXPECT_EQ(escape("\xE2\x80\xAE"), "\\xE2\\x80\\xAE") << "right-to-left override";
  EXPECT_EQ(escape(std::string_view("\0", 1)), "\\x00");
}

TEST(Utf8, RefusesOverlongSurrogatesAndTails) {
  EXPECT_EQ(find_invalid_utf8("plain text that is long enough"), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("12345678é模😀"), std::string_view::npos);
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xE2\x82", "\xFF"}) {
    EXPECT_EQ(find_invalid_utf8(std::string("0123456789") + bad), 10U);
  }
}

}  // namespace
}  // namespace qb
