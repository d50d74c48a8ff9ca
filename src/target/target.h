// What inference engines do with a checkpoint: tables, one file for each engine, and the function that reads them.
//
// Goals: each row says where it was read and in which version; what no row says is not known, never guessed. A checkpoint is judged by what it means (its
// schemes under the producer's labels) and by what is wrong with it (problem codes).
// Non-goals: which machine the engine runs on, which model families it has, its speed.
// Source of truth: the file, page or thread that each row names. docs/engines.md is generated from the tables.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "ir/checkpoint.h"

namespace qb::target {

// What stops comes first: nothing behind it happens. wrong: it loads without an error, and the numbers are not those of the checkpoint.
enum class Outcome : uint8_t { refused, wrong, unknown, loads };
std::string_view to_string(Outcome);

struct Source {
  std::string_view at;       // a file of a public repository, a page, a thread
  std::string_view version;  // a release, a commit, or the date of a thread
};

// experts: linears of experts alone. mixed: checkpoints that say of themselves that
// they have several algorithms, and those of compressed-tensors with several schemes.
enum class Where : uint8_t { any, experts, mixed };

// Patterns are shell patterns, several with spaces between them; empty ones match everything. The first row that matches a linear counts.
struct Row {
  std::string_view dialect;  // as Dialect::name
  std::string_view label;    // the producer's word for the linear: NVFP4, pack-quantized, gemm
  std::string_view weight;   // of the scheme's grammar: nvfp4, int[48]_g*
  std::string_view input;    // likewise; none: activations stay as they are
  Outcome outcome;
  std::string_view path;  // which code or kernel family takes it; empty where none does
  std::string_view why;   // what goes wrong, or the words with which it refuses, or what the user should know
  const Source& source;
  std::string_view may = {};  // features that the scheme may have, as the grammar spells them; * for all
  Where where = Where::any;
  int outputs = 1, inputs = 1;  // only of matrices whose outputs or inputs are no multiple of it, where it is more than 1
};

struct KvRow {
  std::string_view dialect, scheme;  // patterns; schemes without "kv:"
  Outcome outcome;
  std::string_view path, why;
  const Source& source;
};

// What it does with a checkpoint that has a problem.
struct ProblemRow {
  std::string_view code;  // patterns
  std::string_view dialect;
  Outcome outcome;
  std::string_view why;
  const Source& source;
  std::string_view module = {};  // pattern of the problem's module
};

struct Target {
  std::string_view name, title;
  std::string_view version;  // what the table is about
  bool safetensors_library;  // reads weights with the safetensors library, which refuses damaged files
  std::span<const Row> rows;
  std::span<const KvRow> kv;
  std::span<const ProblemRow> problems;
};

std::span<const Target* const> targets();  // the generated manifest
const Target* find_target(std::string_view name);
std::string target_names();  // for messages: llamacpp, sglang, ...

// Rows that hold for every engine: numbers that are no numbers; for those with the safetensors library, files that it refuses.
std::span<const ProblemRow> common_problems();
std::span<const ProblemRow> safetensors_problems();

struct Finding {
  Outcome outcome = Outcome::unknown;
  std::string scheme;                // with "kv:" before a cache's; empty where it is about a problem
  std::string problem;               // its code; empty where it is about a scheme
  std::vector<std::string> modules;  // paths
  std::string path, why;
  Source source;       // empty where nothing is known
  std::string action;  // of problems: what the user should do
};

// One finding for each (scheme, row), the KV cache and each problem code, what stops first. Every scheme, cache and problem is in one of them.
std::vector<Finding> judge(const Target&, const ir::Checkpoint&, std::span<const Problem>);
// The first finding's outcome; unknown without any.
Outcome summary(std::span<const Finding>);

// The producer's word for a linear: the checkpoint's, or the one of its scheme where several are mixed.
std::string_view label_of(const ir::Checkpoint&, const ir::Scheme&);

}  // namespace qb::target

// Registers an engine: QB_TARGET(vllm) = {...}.
#define QB_TARGET(stem)              \
  extern const Target target_##stem; \
  const Target target_##stem
