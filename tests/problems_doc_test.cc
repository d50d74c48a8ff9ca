// docs/problems.md is what the table of problems says. With --write the test writes it instead.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "document.h"

namespace qb::suite {
namespace {

constexpr std::string_view page = "problems.md";

std::string_view repair_in_words(Repair r) {
  switch (r) {
    case Repair::none:
      return "none";
    case Repair::exact:
      return "exact: `convert` makes it, no dequantized value changes";
    case Repair::lossy:
      return "lossy: only with `--repair lossy`";
  }
  return {};
}

std::string generate() {
  std::string out =
      "# Problems\n\n"
      "Every problem that QuantBridge reports has one of these codes, which never change their meaning. A checkpoint's class is that of its most severe\n"
      "problem, in the order damaged, inconsistent, repairable, unsupported, suspicious. Suspicious problems are warnings, all others are errors; where the\n"
      "class depends on the case, the report says which. `quantbridge check --explain CODE` prints an entry.\n\n"
      "This page is made from the table in `src/base/problems.cc`: `problems_doc_test --write`.\n\n"
      "| code | class | repair |\n| --- | --- | --- |\n";
  for (const ProblemKind& k : problem_kinds()) out += fmt::format("| [{0}](#{0}) | {1} | {2} |\n", k.code, to_string(k.cls), to_string(k.repair));
  for (const ProblemKind& k : problem_kinds()) {
    out += fmt::format("\n## {}\n\n{}\n\n", k.code, k.meaning);
    if (k.engines != "-") out += fmt::format("* What engines do: {}\n", k.engines);
    out += fmt::format("* What to do: {}\n* Class: {}\n* Repair: {}\n", k.action, to_string(k.cls), repair_in_words(k.repair));
  }
  return out;
}

TEST(ProblemsDoc, IsWhatTheTableSays) {
  EXPECT_TRUE(read_bytes(document(page)) == generate()) << "run problems_doc_test --write and commit docs/problems.md";
}

TEST(ProblemsDoc, CodesAreUniqueWords) {
  std::set<std::string_view> seen;
  for (const ProblemKind& k : problem_kinds()) {
    EXPECT_TRUE(seen.insert(k.code).second) << k.code << " twice";
    EXPECT_TRUE(std::all_of(k.code.begin(), k.code.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; })) << k.code;
    EXPECT_FALSE(k.meaning.empty() || k.engines.empty() || k.action.empty()) << k.code;
  }
}

}  // namespace
}  // namespace qb::suite

int main(int argc, char** argv) {
  return qb::suite::run_document_tests(argc, argv, qb::suite::page, qb::suite::generate);
}
