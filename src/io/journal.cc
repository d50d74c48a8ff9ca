#include "io/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>

namespace qb {
namespace {

constexpr std::string_view magic = "quantbridge-partial 1\n";
constexpr size_t most_read = 64 << 20;

std::string encode(std::string_view s) {
  std::string out;
  for (const char c : s) {
    if (c > ' ' && c < 0x7F && c != '%') {
      out += c;
    } else {
      fmt::format_to(std::back_inserter(out), "%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

template <class T>
bool parse_number(std::string_view s, T& out, int base = 10) {
  const auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), out, base);
  return ec == std::errc() && end == s.data() + s.size();
}

std::optional<std::string> decode(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '%') {
      out += s[i];
      continue;
    }
    unsigned byte = 0;
    if (s.size() - i < 3 || !parse_number(s.substr(i + 1, 2), byte, 16)) return std::nullopt;
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

std::string file_line(std::string_view name, const Journal::FileState& state) {
  return fmt::format("file {} {} {}\n", state.bytes, state.mtime_ns, encode(name));
}

bool parse_file_line(std::string_view line, Journal::Content& out) {
  const size_t a = line.find(' ');
  const size_t b = a == std::string_view::npos ? a : line.find(' ', a + 1);
  if (b == std::string_view::npos) return false;
  Journal::FileState state;
  if (!parse_number(line.substr(0, a), state.bytes) || !parse_number(line.substr(a + 1, b - a - 1), state.mtime_ns)) return false;
  const auto name = decode(line.substr(b + 1));
  if (!name) return false;
  out.files.insert_or_assign(*name, state);
  return true;
}

}  // namespace

std::optional<Journal::Content> Journal::read(const std::filesystem::path& path) {
  const Fd fd = open_for_reading(AT_FDCWD, path.native());
  if (!fd) return std::nullopt;
  std::string text;
  while (text.size() < most_read) {
    const size_t at = text.size();
    text.resize(at + (64 << 10));
    const int64_t n = read_at(fd.get(), at, std::as_writable_bytes(std::span(text)).subspan(at));
    if (n < 0) return std::nullopt;
    text.resize(at + static_cast<size_t>(n));
    if (n == 0) break;
  }
  std::string_view rest = text;
  if (!rest.starts_with(magic)) return std::nullopt;
  rest.remove_prefix(magic.size());
  Content out;
  for (size_t end; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1)) {
    const std::string_view line = rest.substr(0, end);
    if (line.starts_with("job ")) {
      if (auto job = decode(line.substr(4))) out.fingerprint = std::move(*job);
    } else if (!line.starts_with("file ") || !parse_file_line(line.substr(5), out)) {
      break;  // nothing behind a damaged line is believed
    }
  }
  return out;
}

Result<Journal> Journal::create(const std::filesystem::path& path, const Content& content) {
  const std::string fresh = path.native() + ".new";
  Fd fd(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!fd) return system_error("create", fresh, errno);
  std::string text = fmt::format("{}job {}\n", magic, encode(content.fingerprint));
  for (const auto& [name, state] : content.files) text += file_line(name, state);
  QB_TRY(write_at(fd.get(), 0, std::as_bytes(std::span(text)), fresh));
  QB_TRY(sync_fd(fd.get(), fresh));
  if (rename(fresh.c_str(), path.c_str()) != 0) return system_error("rename", fresh, errno);
  return Journal(std::move(fd), path.native());
}

Result<void> Journal::append(std::string_view name, const FileState& state) {
  const std::string line = file_line(name, state);
  // The file was opened for appending, so the offset is not looked at.
  QB_TRY(write_at(fd_.get(), 0, std::as_bytes(std::span(line)), path_));
  return sync_fd(fd_.get(), path_);
}

}  // namespace qb
