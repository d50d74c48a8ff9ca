// docs/engines.md is what the tables of engines say. With --write the test writes it instead.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "document.h"
#include "target/target.h"

namespace qb::suite {
namespace {

using namespace target;

constexpr std::string_view page = "engines.md";

std::string any(std::string_view patterns) {
  return patterns.empty() ? "any" : fmt::format("`{}`", patterns);
}

std::string cell(std::string_view text) {
  std::string out;
  for (char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

std::string told(std::string_view path, std::string_view why) {
  return cell(fmt::format("{}{}{}", path, path.empty() || why.empty() ? "" : ". ", why));
}

std::string conditions(const Row& r) {
  std::string out;
  if (r.where == Where::experts) out += ", experts";
  if (r.where == Where::mixed) out += ", several algorithms";
  if (r.outputs > 1) out += fmt::format(", outputs no multiple of {}", r.outputs);
  if (r.inputs > 1) out += fmt::format(", inputs no multiple of {}", r.inputs);
  if (!r.may.empty()) out += r.may == "*" ? ", with any feature" : fmt::format(", perhaps with {}", r.may);
  return out;
}

class Sources {
 public:
  size_t number(const target::Source& s) {
    const auto it = std::find(all_.begin(), all_.end(), &s);
    if (it != all_.end()) return static_cast<size_t>(it - all_.begin()) + 1;
    all_.push_back(&s);
    return all_.size();
  }
  std::string list() const {
    std::string out;
    for (size_t i = 0; i < all_.size(); ++i) out += fmt::format("{}. {} ({})\n", i + 1, all_[i]->at, all_[i]->version);
    return out;
  }

 private:
  std::vector<const target::Source*> all_;
};

std::string problem_table(std::span<const ProblemRow> rows, Sources& sources) {
  std::string out = "| problem | of | outcome | what happens | source |\n| --- | --- | --- | --- | --- |\n";
  for (const ProblemRow& r : rows)
    out += fmt::format("| {}{} | {} | {} | {} | {} |\n", any(r.code), r.module.empty() ? "" : fmt::format(" of modules `{}`", r.module), any(r.dialect),
                       to_string(r.outcome), told({}, r.why), sources.number(r.source));
  return out;
}

std::string engine(const Target& t) {
  Sources sources;
  std::string out = fmt::format("\n## {}\n\n`--for {}`: {}.\n\n", t.title, t.name, t.version);
  out += "| dialect | label | weights | activations | outcome | path, or what happens | source |\n| --- | --- | --- | --- | --- | --- | --- |\n";
  for (const Row& r : t.rows)
    out += fmt::format("| {} | {} | {}{} | {} | {} | {} | {} |\n", any(r.dialect), any(r.label), any(r.weight), conditions(r), any(r.input),
                       to_string(r.outcome), told(r.path, r.why), sources.number(r.source));
  if (!t.kv.empty()) {
    out += "\n| dialect | KV cache | outcome | path, or what happens | source |\n| --- | --- | --- | --- | --- |\n";
    for (const KvRow& r : t.kv)
      out += fmt::format("| {} | {} | {} | {} | {} |\n", any(r.dialect), any(r.scheme), to_string(r.outcome), told(r.path, r.why), sources.number(r.source));
  }
  if (!t.problems.empty()) out += "\n" + problem_table(t.problems, sources);
  return out + "\n" + sources.list();
}

std::string generate() {
  std::string out =
      "# Engines\n\n"
      "What inference engines do with a checkpoint, as `quantbridge check PATH --for ENGINE` says it: *refused* (with which words), *wrong* (it loads without "
      "an\n"
      "error and the numbers are not the checkpoint's), *unknown*, or *loads* (by which path). The first row that matches a linear counts. What no row is "
      "about is\n"
      "unknown: nothing is guessed. Labels are the producer's words, weights and activations are those of [schemes.md](schemes.md), in shell patterns; codes "
      "are\n"
      "those of [problems.md](problems.md). Engines move fast: each row names the version that was read, and another one may do better or worse.\n\n"
      "This page is made from the tables in `src/target/`: `engines_doc_test --write`.\n\n"
      "## Every engine\n\n";
  Sources sources;
  out += problem_table(common_problems(), sources);
  out += "\nOf engines that read weights with the safetensors library (all but llama.cpp):\n\n" + problem_table(safetensors_problems(), sources);
  out += "\n" + sources.list();  // what the tables have named
  for (const Target* t : targets()) out += engine(*t);
  return out;
}

TEST(EnginesDoc, IsWhatTheTablesSay) {
  EXPECT_TRUE(read_bytes(document(page)) == generate()) << "run engines_doc_test --write and commit docs/engines.md";
}

}  // namespace
}  // namespace qb::suite

int main(int argc, char** argv) {
  return qb::suite::run_document_tests(argc, argv, qb::suite::page, qb::suite::generate);
}
