// Problems of one file, bounded: a hostile file may have millions of one kind, and the first few say what is wrong.
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>
#include <string_view>

#include "base/diagnostics.h"

namespace qb {

class Reporter {
 public:
  static constexpr size_t at_most = 32;  // of one code

  Reporter(Diagnostics& diag, std::string_view file) : diag_(diag), file_(file) {}
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;
  ~Reporter() {
    for (const auto& [code, seen] : seen_) {
      if (seen.count > at_most) diag_.all()[seen.last].found += fmt::format(" (and {} more problems of this kind in the file)", seen.count - at_most);
    }
  }

  void report(std::string_view code, std::string_view tensor, std::string found, std::string expected) {
    Seen& seen = seen_[std::string(code)];
    if (++seen.count > at_most) return;
    seen.last = diag_.all().size();
    diag_.report(code, {.file = file_, .tensor = tensor}, std::move(found), std::move(expected));
  }

  // Nothing reported so far is an error.
  bool ok() const { return seen_.empty(); }

 private:
  struct Seen {
    size_t count = 0, last = 0;
  };
  Diagnostics& diag_;
  std::string file_;
  std::map<std::string, Seen> seen_;
};

}  // namespace qb
