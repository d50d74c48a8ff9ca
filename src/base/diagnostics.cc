#include "base/diagnostics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/utf8.h"

namespace qb {

std::string_view to_string(Severity s) {
  switch (s) {
    case Severity::error:
      return "error";
    case Severity::warning:
      return "warning";
    case Severity::note:
      return "note";
  }
  return "";
}

std::string_view to_string(ProblemClass c) {
  switch (c) {
    case ProblemClass::damaged:
      return "damaged";
    case ProblemClass::inconsistent:
      return "inconsistent";
    case ProblemClass::repairable:
      return "repairable";
    case ProblemClass::unsupported:
      return "unsupported";
    case ProblemClass::suspicious:
      return "suspicious";
    case ProblemClass::environment:
      return "environment";
  }
  return "";
}

std::string_view to_string(Repair r) {
  switch (r) {
    case Repair::none:
      return "none";
    case Repair::exact:
      return "exact";
    case Repair::lossy:
      return "lossy";
  }
  return "";
}

const ProblemKind* find_problem_kind(std::string_view code) {
  for (const ProblemKind& kind : problem_kinds()) {
    if (kind.code == code) return &kind;
  }
  return nullptr;
}

Problem& Diagnostics::report(std::string_view code, Place place, std::string found, std::string expected) {
  const ProblemKind* kind = find_problem_kind(code);
  if (kind == nullptr) {
    // The name is worth more than a bare abort: the table in problems.cc lacks a row.
    std::fprintf(stderr, "quantbridge: problem code '%.*s' is not in the table\n", static_cast<int>(code.size()), code.data());
    std::abort();
  }
  Problem p;
  p.code = std::string(code);
  p.severity = kind->cls == ProblemClass::suspicious ? Severity::warning : Severity::error;
  p.cls = kind->cls;
  p.repair = kind->repair;
  p.file = std::string(place.file);
  p.tensor = std::string(place.tensor);
  p.module = std::string(place.module);
  p.found = std::move(found);
  p.expected = std::move(expected);
  p.action = std::string(kind->action);
  return all_.emplace_back(std::move(p));
}

bool Diagnostics::ok() const {
  return std::none_of(all_.begin(), all_.end(), [](const Problem& p) { return p.severity == Severity::error; });
}

bool Diagnostics::has(std::string_view code) const {
  return std::any_of(all_.begin(), all_.end(), [&](const Problem& p) { return p.code == code; });
}

// Notes do not count: they say how something was taken, not that it is wrong.
bool Diagnostics::worst(ProblemClass& out) const {
  bool any = false;
  for (const Problem& p : all_) {
    if (p.severity == Severity::note) continue;
    out = any ? std::min(out, p.cls) : p.cls;
    any = true;
  }
  return any;
}

namespace {

// Code points that steer a terminal or reorder what is printed: C0, DEL, C1, line and paragraph separators, bidirectional controls.
bool steers(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

}  // namespace

std::string escape(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  size_t i = 0;
  while (i < bytes.size()) {
    const Utf8Char c = decode_utf8(bytes.substr(i));
    const size_t n = c.bytes == 0 ? 1 : c.bytes;
    if (c.bytes == 0 || steers(c.point)) {
      for (size_t k = 0; k < n; ++k) fmt::format_to(std::back_inserter(out), "\\x{:02X}", static_cast<unsigned char>(bytes[i + k]));
    } else {
      out.append(bytes.substr(i, n));
    }
    i += n;
  }
  return out;
}

}  // namespace qb
