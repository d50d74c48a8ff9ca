#include "host/proc.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <ctime>

#include "host/host.h"

namespace qb::host {
namespace {

std::atomic<uint64_t> peak{0};

// The number at the start of `text`, behind spaces and tabs.
std::optional<uint64_t> leading_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

size_t read_into(const char* path, std::array<char, 16384>& text) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(fd, text.data() + size, text.size() - size);
    if (n <= 0) break;
    size += static_cast<size_t>(n);
  }
  ::close(fd);
  return size;
}

int affinity() {
  // Machines with more processors than a cpu_set_t holds answer EINVAL until the set is large enough.
  for (int room = CPU_SETSIZE; room <= 1 << 18; room *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(room));
    if (set == nullptr) return 1;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(room));
    CPU_ZERO_S(bytes, set);
    const bool answered = sched_getaffinity(0, bytes, set) == 0;
    const int count = answered ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (answered) return std::max(1, count);
  }
  return 1;
}

}  // namespace

std::string read_small_file(const char* path) {
  std::array<char, 16384> text;
  return std::string(text.data(), read_into(path, text));
}

std::optional<int> quota_of(std::string_view cpu_max) {
  const auto quota = leading_number(cpu_max);
  const size_t space = cpu_max.find(' ');
  if (!quota || space == std::string_view::npos) return std::nullopt;
  const auto period = leading_number(cpu_max.substr(space));
  if (!period || *period == 0) return std::nullopt;
  const uint64_t whole = *quota / *period + (*quota % *period != 0 ? 1 : 0);
  return static_cast<int>(std::clamp<uint64_t>(whole, 1, 1 << 20));
}

std::string_view unified_cgroup(std::string_view text) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.starts_with("0::/")) return line.substr(3);
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return {};
}

uint64_t rss_anon(std::string_view status) {
  constexpr std::string_view key = "\nRssAnon:";
  const size_t at = status.find(key);
  if (at == std::string_view::npos) return 0;
  return leading_number(status.substr(at + key.size())).value_or(0) * 1024;
}

int processors() {
  int count = affinity();
  // A limit of any directory above holds as well.
  const std::string cgroup = read_small_file("/proc/self/cgroup");
  std::string path(unified_cgroup(cgroup));
  while (!path.empty()) {
    const std::string limit = read_small_file(("/sys/fs/cgroup" + path + "/cpu.max").c_str());
    if (const auto quota = quota_of(limit)) count = std::min(count, *quota);
    if (path == "/") break;
    path.erase(path.rfind('/'));
    if (path.empty()) path = "/";
  }
  return count;
}

void sample_memory() {
  std::array<char, 16384> text;
  const uint64_t now = rss_anon(std::string_view(text.data(), read_into("/proc/self/status", text)));
  uint64_t before = peak.load(std::memory_order_relaxed);
  while (now > before && !peak.compare_exchange_weak(before, now, std::memory_order_relaxed)) {
  }
}

double thread_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

uint64_t peak_anonymous() {
  return peak.load(std::memory_order_relaxed);
}

}  // namespace qb::host
