// What commands share in saying things: problems, JSON envelopes, sizes, progress.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "base/diagnostics.h"
#include "base/json_fwd.h"
#include "exec/context.h"

namespace qb::cli {

struct CommonOptions {
  bool json = false, quiet = false, verbose = false;
};

// {"schema": "quantbridge.<command>/1", "ok", "version", "problems"}
Json envelope(std::string_view command, bool ok, std::span<const Problem> problems);
Json to_json(const Problem&);

// Of several processes (ranks.h) one prints.
void print_out(const std::string& text);  // stdout
void print_err(const std::string& text);  // stderr
void print_json(const Json& value);       // stdout
// Problems for people, on stderr: at most `limit` of one code, then a count.
void print_problems(std::span<const Problem> problems, size_t limit = 5);

int exit_code_of(const Error& error);
// An outside-world error: to stderr, or as JSON with a problem of class environment. Returns the exit code.
int fail(std::string_view command, const Error& error, const CommonOptions& options, std::span<const Problem> problems = {});

std::string size_text(uint64_t bytes);                      // 1.2 GB
bool parse_size(const std::string& text, uint64_t& bytes);  // 512MiB, 5GB, 1e9, 64k
// A bar on a terminal, nothing elsewhere.
std::function<void(const Progress&)> progress_bar(std::string label, const CommonOptions& options, std::string (*text)(uint64_t) = size_text);

}  // namespace qb::cli
