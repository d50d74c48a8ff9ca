#include "text/unicode_form.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "base/utf8.h"

namespace qb::text {
namespace {

constexpr size_t most_marks = 1024;

struct Free {
  void operator()(utf8proc_uint8_t* p) const { std::free(p); }
};

}  // namespace

bool is_plainly(std::string_view text, UnicodeForm form) {
  // NFC leaves all below U+0300 (CC 80) alone, the others ASCII.
  const unsigned char least = form == UnicodeForm::nfc ? 0xCC : 0x80;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= least) return false;
  }
  return true;
}

Result<std::string> to_form(std::string_view text, UnicodeForm form) {
  if (is_plainly(text, form)) return std::string(text);
  size_t marks = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(i));
    if (c.bytes == 0) return Error{Errc::invalid_argument, fmt::format("the text is not UTF-8 at byte {}", i)};
    marks = c.point >= 0x300 && utf8proc_get_property(static_cast<utf8proc_int32_t>(c.point))->combining_class != 0 ? marks + 1 : 0;
    if (marks > most_marks)
      return Error{Errc::invalid_argument, fmt::format("more than {} combining marks in a row before byte {} of the text", most_marks, i)};
    i += c.bytes;
  }
  const bool composed = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  const bool compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  utf8proc_uint8_t* made = nullptr;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatible ? UTF8PROC_COMPAT : 0));
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &made, options);
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(made);
  if (n < 0) return Error{Errc::invalid_argument, fmt::format("normalizing the text: {}", utf8proc_errmsg(n))};
  return std::string(reinterpret_cast<const char*>(made), static_cast<size_t>(n));
}

}  // namespace qb::text
