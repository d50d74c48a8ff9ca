// Python's `re` on PCRE2. What Python has and PCRE2 lacks or reads otherwise is in to_pcre2 below; the rest (named groups, look-around, inline flags, lazy and
// possessive quantifiers) means the same in both.
// Sources: docs.python.org/3/library/re.html, pcre2pattern(3), pcre2api(3).
#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <mutex>

#include "base/diagnostics.h"
#include "host/host.h"

namespace qb::host {
namespace {

// Steps and kilobytes that one match may take: enough for any list of module names, little enough that a hostile pattern ends within milliseconds.
constexpr uint32_t match_limit = 1'000'000, depth_limit = 10'000, heap_limit_kib = 16 * 1024;
constexpr size_t longest_pattern = 64 * 1024;
// A search runs over whole documents, where one match may go back over millions of spaces.
constexpr uint32_t find_match_limit = 10'000'000;

struct CodeFree {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct CompileContextFree {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};
struct MatchContextFree {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
struct MatchDataFree {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};

PCRE2_SPTR text_of(std::string_view s) {
  return reinterpret_cast<PCRE2_SPTR>(s.empty() ? "" : s.data());
}

std::string message_of(int error) {
  std::array<char, 256> message{};
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message.data()), message.size());
  return message.data();
}

std::unique_ptr<pcre2_match_context, MatchContextFree> limits_of(uint32_t steps) {
  std::unique_ptr<pcre2_match_context, MatchContextFree> limits(pcre2_match_context_create(nullptr));
  if (limits == nullptr) return nullptr;
  pcre2_set_match_limit(limits.get(), steps);
  pcre2_set_depth_limit(limits.get(), depth_limit);
  pcre2_set_heap_limit(limits.get(), heap_limit_kib);
  return limits;
}

class Pcre2Regex final : public Regex {
 public:
  using Code = std::unique_ptr<pcre2_code, CodeFree>;
  using Limits = std::unique_ptr<pcre2_match_context, MatchContextFree>;

  Pcre2Regex(Code code, Limits limits, Limits find_limits) : code_(std::move(code)), limits_(std::move(limits)), find_limits_(std::move(find_limits)) {}

  bool match_prefix(std::string_view text) const override {
    // Match data belongs to one match at a time, so each call has its own: that is what makes this thread-safe.
    const std::unique_ptr<pcre2_match_data, MatchDataFree> data(pcre2_match_data_create(1, nullptr));
    if (data == nullptr) return false;
    // Text that is not UTF-8 is an error of pcre2_match: no match.
    return pcre2_match(code_.get(), text_of(text), text.size(), 0, PCRE2_ANCHORED, data.get(), limits_.get()) >= 0;
  }

  Result<std::optional<RegexMatch>> find(std::string_view text, size_t from) const override {
    if (from > text.size()) return std::optional<RegexMatch>();
    // A tokenizer finds millions of short matches, so the match data stays with the thread: one pair of offsets serves every pattern.
    thread_local const std::unique_ptr<pcre2_match_data, MatchDataFree> data(pcre2_match_data_create(1, nullptr));
    const pcre2_code* code = search_code();
    if (data == nullptr || code == nullptr) return Error{Errc::out_of_memory, "no memory for a search"};
    // The caller promises UTF-8: checking here would read the whole text once for each match.
    constexpr uint32_t checked = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(code, text_of(text), text.size(), from, checked, data.get(), find_limits_.get());
    // Compiled code has a small fixed stack; the interpreter takes what the limits give.
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = pcre2_match(code, text_of(text), text.size(), from, checked | PCRE2_NO_JIT, data.get(), find_limits_.get());
    if (rc == PCRE2_ERROR_NOMATCH) return std::optional<RegexMatch>();
    if (rc < 0) return Error{Errc::invalid_argument, fmt::format("a search from byte {} of {}: {}", from, text.size(), message_of(rc))};
    const size_t* const at = pcre2_get_ovector_pointer(data.get());
    // \K in a look-behind can put the start after the end.
    if (at[0] > at[1] || at[1] > text.size())
      return Error{Errc::invalid_argument, fmt::format("a search from byte {}: a match that ends before it starts", from)};
    return std::optional<RegexMatch>(RegexMatch{at[0], at[1]});
  }

 private:
  // Compiled to machine code when the first search needs it, in a copy: match_prefix may be running on the original.
  const pcre2_code* search_code() const {
    std::call_once(once_, [this] {
      search_code_.reset(pcre2_code_copy(code_.get()));
      if (search_code_ != nullptr) pcre2_jit_compile(search_code_.get(), PCRE2_JIT_COMPLETE);  // where it fails, the interpreter serves
    });
    return search_code_.get();
  }

  Code code_;
  Limits limits_, find_limits_;
  mutable std::once_flag once_;
  mutable Code search_code_;
};

// Differences in spelling: Python's \Z is PCRE2's \z (PCRE2's own \Z also matches before a final newline), and {,n}, which means {0,n}, stands for itself
// before PCRE2 10.43.
std::string to_pcre2(std::string_view pattern) {
  std::string out;
  out.reserve(pattern.size());
  size_t set = pattern.npos;  // where the members of an open [set] begin
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    out += c;
    if (c == '\\' && i + 1 < pattern.size()) {
      ++i;
      out += pattern[i] == 'Z' ? 'z' : pattern[i];
    } else if (set != pattern.npos) {
      if (c == ']' && i > set) set = pattern.npos;
    } else if (c == '[') {
      set = i + 1 < pattern.size() && pattern[i + 1] == '^' ? i + 2 : i + 1;
    } else if (c == '{' && i + 1 < pattern.size() && pattern[i + 1] == ',') {
      const size_t end = pattern.find_first_not_of("0123456789", i + 2);
      if (end != pattern.npos && pattern[end] == '}') out += '0';
    }
  }
  return out;
}

}  // namespace

Result<std::shared_ptr<const Regex>> compile_regex(std::string_view pattern) {
  if (pattern.size() > longest_pattern) {
    return Error{Errc::invalid_argument, fmt::format("pattern of {} bytes: at most {} are taken", pattern.size(), longest_pattern)};
  }
  // (*VERB)s at the start would let a pattern lift the limits; Python refuses them too.
  if (pattern.starts_with("(*")) return Error{Errc::invalid_argument, fmt::format("pattern '{}': nothing to repeat at offset 1", escape(pattern))};
  const std::string translated = to_pcre2(pattern);
  const std::unique_ptr<pcre2_compile_context, CompileContextFree> settings(pcre2_compile_context_create(nullptr));
  auto limits = limits_of(match_limit);
  auto find_limits = limits_of(find_match_limit);
  if (settings == nullptr || limits == nullptr || find_limits == nullptr) return Error{Errc::out_of_memory, "no memory for a pattern"};
  pcre2_set_newline(settings.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  // Python's str patterns see Unicode classes, read \uXXXX, and let a back reference to an unset group fail: the defaults of PCRE2 plus these.
  constexpr uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_ALT_BSUX;
  std::unique_ptr<pcre2_code, CodeFree> code(pcre2_compile(text_of(translated), translated.size(), options, &error, &offset, settings.get()));
  if (code == nullptr) {
    return Error{Errc::invalid_argument, fmt::format("pattern '{}': {} at offset {}", escape(pattern), message_of(error), offset)};
  }
  return std::shared_ptr<const Regex>(std::make_shared<Pcre2Regex>(std::move(code), std::move(limits), std::move(find_limits)));
}

}  // namespace qb::host
