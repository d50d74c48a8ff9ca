#include "cli/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>

#include "base/json.h"
#include "cli/command.h"
#include "cli/ranks.h"
#include "quantbridge/version.h"

namespace qb::cli {

Json to_json(const Problem& p) {
  Json j = Json::object();
  j["code"] = p.code;
  j["severity"] = to_string(p.severity);
  j["class"] = to_string(p.cls);
  const auto text = [](const std::string& s) { return s.empty() ? Json(nullptr) : Json(escape(s)); };
  j["file"] = text(p.file);
  j["tensor"] = text(p.tensor);
  j["module"] = text(p.module);
  j["found"] = text(p.found);
  j["expected"] = text(p.expected);
  j["action"] = text(p.action);
  j["repair"] = to_string(p.repair);
  return j;
}

Json envelope(std::string_view command, bool ok, std::span<const Problem> problems) {
  Json j = Json::object();
  j["schema"] = fmt::format("quantbridge.{}/1", command);
  j["ok"] = ok;
  j["version"] = version;
  j["problems"] = Json::array();
  for (const Problem& p : problems) j["problems"].push_back(to_json(p));
  return j;
}

void print_out(const std::string& text) {
  if (is_speaker()) std::fwrite(text.data(), 1, text.size(), stdout);
}
void print_err(const std::string& text) {
  if (is_speaker()) std::fwrite(text.data(), 1, text.size(), stderr);
}
void print_json(const Json& value) {
  print_out(dump_json(value) + "\n");
}

void print_problems(std::span<const Problem> problems, size_t limit) {
  std::map<std::string, size_t> shown;
  for (const Problem& p : problems) {
    if (++shown[p.code] > limit) continue;
    std::string place = escape(p.file);
    for (const std::string* part : {&p.tensor, &p.module})
      if (!part->empty() && place.find(escape(*part)) == place.npos) place += fmt::format("{}{}", place.empty() ? "" : ": ", escape(*part));
    print_err(fmt::format("{} [{}, {}] {}\n    found     {}\n    expected  {}\n", to_string(p.severity), p.code, to_string(p.cls), place, escape(p.found),
                          escape(p.expected)));
    if (!p.action.empty()) print_err(fmt::format("    do        {}\n", escape(p.action)));
  }
  for (const auto& [code, count] : shown)
    if (count > limit) print_err(fmt::format("... and {} more of {}\n", count - limit, code));
}

int exit_code_of(const Error& error) {
  switch (error.code) {
    case Errc::exists:
    case Errc::invalid_argument:
      return exit_usage;
    case Errc::bad_input:
      return exit_problems;
    default:
      return exit_environment;
  }
}

int fail(std::string_view command, const Error& error, const CommonOptions& options, std::span<const Problem> problems) {
  static const std::map<Errc, const char*> codes{{Errc::io, "io-error"},
                                                 {Errc::not_found, "path-missing"},
                                                 {Errc::exists, "output-exists"},
                                                 {Errc::out_of_space, "disk-full"},
                                                 {Errc::out_of_memory, "budget-small"},
                                                 {Errc::cancelled, "interrupted"},
                                                 {Errc::invalid_argument, "usage"},
                                                 {Errc::bad_input, "input-unusable"}};
  if (options.json) {
    std::vector<Problem> all(problems.begin(), problems.end());
    all.push_back({.code = codes.at(error.code), .severity = Severity::error, .cls = ProblemClass::environment, .found = error.what});
    print_json(envelope(command, false, all));
  } else {
    print_err(fmt::format("quantbridge {}: {}\n", command, escape(error.what)));
  }
  return exit_code_of(error);
}

std::string size_text(uint64_t bytes) {
  static constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  auto x = static_cast<double>(bytes);
  size_t i = 0;
  for (; x >= 1000 && i + 1 < std::size(units); ++i) x /= 1000;
  return i == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.3g} {}", x, units[i]);
}

bool parse_size(const std::string& text, uint64_t& bytes) {
  static const std::map<std::string, double> units{
      {"", 1},     {"b", 1},    {"k", 1e3},   {"kb", 1e3},   {"m", 1e6},       {"mb", 1e6},           {"g", 1e9},
      {"gb", 1e9}, {"t", 1e12}, {"tb", 1e12}, {"kib", 1024}, {"mib", 1048576}, {"gib", 1073741824.0}, {"tib", 1099511627776.0}};
  char* end = nullptr;
  const double x = std::strtod(text.c_str(), &end);
  if (end == text.c_str()) return false;
  std::string unit(end);
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto it = units.find(unit);
  if (it == units.end() || !(x > 0) || x * it->second > 1e18) return false;
  bytes = static_cast<uint64_t>(x * it->second);
  return bytes > 0;
}

std::function<void(const Progress&)> progress_bar(std::string label, const CommonOptions& options, std::string (*text)(uint64_t)) {
  if (options.quiet || options.json || isatty(STDERR_FILENO) == 0) return {};
  const auto begin = std::chrono::steady_clock::now();
  return [label = std::move(label), begin, text](const Progress& p) {
    if (p.total == 0) return;
    const double part = static_cast<double>(p.done) / static_cast<double>(p.total);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const int filled = static_cast<int>(part * 30);
    const std::string left = part > 0.02 && part < 1 ? fmt::format(", {:.0f} s left", seconds / part * (1 - part)) : "";
    print_err(fmt::format("\r\x1b[K{} [{:<30}] {:3.0f} %  {} of {}{}{}", label, std::string(static_cast<size_t>(filled), '#'), part * 100, text(p.done),
                          text(p.total), left, p.done >= p.total ? "\n" : ""));
  };
}

}  // namespace qb::cli
