// How fast `check --deep` reads, as ratios to a plain read of the same files in the same run: from the page cache, and from the disk.
//
// The plain read is one thread with a buffer of 8 MiB. The two take turns in going first; before each measurement from the disk the files' pages are dropped,
// before each from memory they are read once. The median and the spread of the ratios are printed: 1 would mean that checking costs nothing. Beside it the same
// of the processors' time, which says what checking costs where other processes take their part.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>

#include "bridge/check.h"
#include "host/host.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void die(const std::string& what) {
  fmt::print(stderr, "bench_check: {}\n", what);
  std::exit(1);
}

struct Seconds {
  double wall, busy;  // busy: of all threads, in the system too
};

double busy_seconds() {
  rusage u{};
  ::getrusage(RUSAGE_SELF, &u);
  const auto of = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return of(u.ru_utime) + of(u.ru_stime);
}

Seconds seconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  const double busy = busy_seconds();
  f();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), busy_seconds() - busy};
}

void each_file(const Session& s, const std::function<void(int)>& f) {
  for (const PackageFile& file : s.package.files) {
    const int fd = ::open((s.path / file.name).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("cannot open " + file.name);
    f(fd);
    ::close(fd);
  }
}

void read_plainly(const Session& s) {
  static std::vector<char> buffer(8 << 20);
  each_file(s, [](int fd) {
    while (::read(fd, buffer.data(), buffer.size()) > 0) {
    }
  });
}

void drop_pages(const Session& s) {
  each_file(s, [](int fd) {
    ::fdatasync(fd);
    if (::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) die("posix_fadvise failed");
  });
}

// The checkpoint is opened anew each time: what was found before is not found again.
Seconds check(const fs::path& path, int threads, const std::function<void(const Session&)>& before) {
  Result<Session> s = open_session(path);
  if (!s) die(s.error().what);
  Context context;
  context.limits.threads = threads;
  context.isa = host::detect_isa();
  before(*s);
  return seconds([&] {
    const Result<CheckReport> r = check_session(*s, true, context);
    if (!r) die(r.error().what);
  });
}

void compare(std::string_view name, const fs::path& path, int threads, int repeats, const std::function<void(const Session&)>& before) {
  Result<Session> s = open_session(path);
  if (!s) die(s.error().what);
  uint64_t bytes = 0;
  for (const PackageFile& f : s->package.files) bytes += f.size;
  std::vector<double> ratios, busy;
  Seconds mine{}, plain{};
  const auto read = [&] {
    before(*s);
    plain = seconds([&] { read_plainly(*s); });
  };
  for (int i = 0; i < repeats; ++i) {
    if (i % 2 == 0) read();
    mine = check(path, threads, before);
    if (i % 2 != 0) read();
    ratios.push_back(plain.wall / mine.wall);
    busy.push_back(plain.busy / mine.busy);
  }
  std::sort(ratios.begin(), ratios.end());
  std::sort(busy.begin(), busy.end());
  fmt::print("{:<12} ratio {:.2f} ({:.2f} .. {:.2f}), of processors' time {:.2f}  last: check {:.2f} GB/s, plain read {:.2f} GB/s, {} bytes, {} repeats\n",
             name, ratios[ratios.size() / 2], ratios.front(), ratios.back(), busy[busy.size() / 2], static_cast<double>(bytes) / mine.wall / 1e9,
             static_cast<double>(bytes) / plain.wall / 1e9, bytes, repeats);
}

int run(int argc, char** argv) {
  if (argc < 2) die("usage: bench_check CHECKPOINT [REPEATS=7] [THREADS=all]");
  const int repeats = argc > 2 ? std::atoi(argv[2]) : 7, threads = argc > 3 ? std::atoi(argv[3]) : host::processors();
  if (repeats < 1 || threads < 1) die("REPEATS and THREADS are numbers from 1");
  compare("page cache", argv[1], threads, repeats, read_plainly);
  compare("disk", argv[1], threads, repeats, drop_pages);
  return 0;
}

}  // namespace
}  // namespace qb

int main(int argc, char** argv) {
  return qb::run(argc, argv);
}
