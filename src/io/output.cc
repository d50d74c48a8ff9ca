// OUT.partial holds `lock` (flock: it dies with its process), `journal`, for each process that joined `lock.<rank>` and `journal.<rank>`, and `files/`, which
// commit() renames to OUT. So the lock and the journal never have to be taken out of a finished directory, and another process that waits for the lock never
// sees it vanish while the rename is still to come.
#include "io/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <set>
#include <vector>

#include "base/diagnostics.h"
#include "io/journal.h"
#include "io/posix_file.h"
#include "io/rename.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

std::string shown(const fs::path& p) {
  return escape(p.native());
}

Journal::FileState state_of(const struct stat& st) {
  return {static_cast<uint64_t>(st.st_size), static_cast<int64_t>(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec};
}

// `inner` is `outer` or lies below it; both canonical.
bool within(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

// Where OUT is or will be, without links; its parent has to exist.
Result<fs::path> resolve_output(const fs::path& given) {
  const fs::path out = without_slashes(given);
  std::error_code ec;
  if (fs::exists(out, ec)) {
    fs::path real = fs::canonical(out, ec);
    if (ec) return system_error("resolve", out.native(), ec.value());
    if (!real.has_filename()) return Error{Errc::invalid_argument, fmt::format("{} cannot be an output directory", shown(given))};
    return real;
  }
  const fs::path name = out.filename();
  if (name.empty() || name == "." || name == "..") return Error{Errc::invalid_argument, fmt::format("{} cannot be an output directory", shown(given))};
  if (fs::is_symlink(out, ec)) return Error{Errc::exists, fmt::format("{} is a link to something that is not there; remove it", shown(given))};
  const fs::path parent = out.has_parent_path() ? out.parent_path() : fs::path(".");
  const fs::path real = fs::canonical(parent, ec);
  if (ec) return Error{Errc::not_found, fmt::format("cannot create {}: its parent {} is not there", shown(given), shown(parent))};
  return real / name;
}

// Replacing OUT must not touch IN, nor the files that the links in IN lead to.
Result<void> check_apart(const fs::path& out, const fs::path& in, bool force) {
  std::error_code ec;
  const fs::path real_in = fs::canonical(in, ec);
  if (ec) return system_error("open", in.native(), ec.value());
  if (out == real_in) return Error{Errc::invalid_argument, fmt::format("the output {} is the input; give another directory", shown(out))};
  if (within(out, real_in))
    return Error{Errc::invalid_argument, fmt::format("the output {} lies inside of the input {}; give another directory", shown(out), shown(real_in))};
  if (within(real_in, out))
    return Error{Errc::invalid_argument, fmt::format("the output {} contains the input {}; give another directory", shown(out), shown(real_in))};
  if (!force || !fs::exists(out, ec)) return {};
  for (fs::directory_iterator it(real_in, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code broken;
    const fs::path target = fs::canonical(it->path(), broken);
    if (!broken && within(target, out)) {
      return Error{Errc::invalid_argument,
                   fmt::format("the output {} contains {}, to which a link in the input leads; give another directory", shown(out), shown(target))};
    }
  }
  return {};
}

Result<void> check_absent(const fs::path& out, bool force) {
  struct stat st {};
  if (lstat(out.c_str(), &st) != 0) return {};
  if (!S_ISDIR(st.st_mode)) return Error{Errc::exists, fmt::format("{} exists and is not a directory; remove it or give another one", shown(out))};
  if (!force) return Error{Errc::exists, fmt::format("{} exists; --force replaces it", shown(out))};
  return {};
}

// A directory of that name that somebody else made is left alone.
Result<void> check_ours(const fs::path& partial) {
  if (Journal::read(partial / "journal")) return {};
  std::error_code ec;
  for (fs::directory_iterator it(partial, ec), end; !ec && it != end; it.increment(ec)) {
    const fs::path name = it->path().filename();
    std::error_code unreadable;
    const bool just_made =
        name == "files" && fs::is_directory(it->symlink_status(unreadable)) && fs::is_empty(it->path(), unreadable);  // before the first journal
    if (name != "lock" && name != "journal.new" && !just_made) {
      return Error{Errc::exists, fmt::format("{} exists and is no interrupted output; move it away or give another output directory", shown(partial))};
    }
  }
  return {};
}

// `lock.1`, `journal.2`: what processes that joined have left.
std::vector<fs::path> of_joined(const fs::path& partial, std::string_view what) {
  std::vector<fs::path> out;
  std::error_code ec;
  for (fs::directory_iterator it(partial, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().native();
    if (name.size() > what.size() + 1 && name.starts_with(what) && name[what.size()] == '.' && name != "journal.new") out.push_back(it->path());
  }
  return out;
}

constexpr std::string_view writing = "another process is writing this output";

// Makes OUT.partial and locks it.
Result<Fd> lock_partial(const fs::path& partial) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    if (mkdir(partial.c_str(), 0777) != 0) {
      if (errno != EEXIST) return system_error("create", partial.native(), errno);
      struct stat st {};
      if (lstat(partial.c_str(), &st) != 0) continue;
      if (!S_ISDIR(st.st_mode)) return Error{Errc::exists, fmt::format("{} exists and is not a directory; move it away", shown(partial))};
      QB_TRY(check_ours(partial));
    }
    const fs::path name = partial / "lock";
    Result<Fd> locked = lock_file(name, writing);
    if (!locked && errno == ENOENT) continue;
    if (!locked) return locked.error();
    Fd fd = std::move(*locked);
    // The process before us may have finished, and removed the file that we hold.
    struct stat held {};
    struct stat named {};
    if (fstat(fd.get(), &held) == 0 && stat(name.c_str(), &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev) return fd;
  }
  return Error{Errc::io, fmt::format("cannot lock {}: it keeps being removed by another process", shown(partial))};
}

// The fallback of rename_over() was cut off between its two renames: what OUT was comes back first.
Result<void> restore_old(const fs::path& partial, const fs::path& out) {
  struct stat st {};
  if (lstat((partial / "old").c_str(), &st) != 0 || lstat(out.c_str(), &st) == 0) return {};
  return rename_new(partial / "old", out);
}

Error no_space(const fs::path& where, uint64_t need, uint64_t have) {
  return {Errc::out_of_space,
          fmt::format("not enough space for {}: {} bytes are needed, {} are free; free some or give another file system", shown(where), need, have)};
}

uint64_t free_bytes(const struct statvfs& v) {
  return static_cast<uint64_t>(v.f_bavail) * static_cast<uint64_t>(v.f_frsize);
}

class Output;

class File final : public OutputFile {
 public:
  File(Output& out, std::string name, std::string path, Fd fd) : out_(out), name_(std::move(name)), path_(std::move(path)), fd_(std::move(fd)) {}
  Result<void> reserve(uint64_t size) override;
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override { return write_at(fd_.get(), offset, bytes, path_); }
  void write_back(uint64_t offset, uint64_t size) override {
    sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(size), SYNC_FILE_RANGE_WRITE);
  }
  Result<void> finish() override;

 private:
  Output& out_;
  std::string name_, path_;
  Fd fd_;
};

class Output final : public OutputDirectory {
 public:
  Output(fs::path out, fs::path partial, bool force, Fd lock)
      : out_(std::move(out)), partial_(std::move(partial)), files_(partial_ / "files"), force_(force), lock_(std::move(lock)) {}
  // One that joined.
  Output(const fs::path& partial, Fd lock, Journal journal, std::map<std::string, Journal::FileState, std::less<>> finished)
      : partial_(partial),
        files_(partial_ / "files"),
        force_(false),
        lock_(std::move(lock)),
        journal_(std::move(journal)),
        finished_(std::move(finished)),
        keep_(true) {}
  ~Output() override {
    if (!committed_ && !keep_) remove_partial();
  }

  Result<void> prepare(std::string_view fingerprint, uint64_t bytes);

  Start start() const override { return start_; }
  const fs::path& path() const override { return files_; }
  bool finished(std::string_view file) const override {
    const std::scoped_lock lock(mutex_);
    return finished_.contains(file);
  }
  Result<std::unique_ptr<OutputFile>> open(std::string_view file) override;
  Result<void> write_file(std::string_view file, std::string_view bytes) override {
    QB_ASSIGN(const std::unique_ptr<OutputFile> f, open(file));
    QB_TRY(f->write(0, std::as_bytes(std::span(bytes))));
    return f->finish();
  }
  Result<void> commit() override;

  Result<void> record(const std::string& name, const Journal::FileState& state) {
    const std::scoped_lock lock(mutex_);
    QB_TRY(journal_->append(name, state));
    finished_.insert_or_assign(name, state);
    return {};
  }

 private:
  Result<void> keep_finished(const Journal::Content& old);
  Result<void> sync_tree();
  void remove_partial();

  const fs::path out_, partial_, files_;  // no OUT: this one has joined
  const bool force_;
  Fd lock_;
  Start start_ = Start::fresh;
  std::optional<Journal> journal_;
  mutable std::mutex mutex_;  // journal_, finished_
  std::map<std::string, Journal::FileState, std::less<>> finished_;
  bool committed_ = false;
  bool keep_ = false;  // what an earlier run has finished outlives a failure to start
};

Result<void> File::reserve(uint64_t size) {
  if (size == 0) return {};
  int e = 0;
  do {
    e = fallocate(fd_.get(), 0, 0, static_cast<off_t>(size)) == 0 ? 0 : errno;
  } while (e == EINTR);
  if (e == 0) return {};
  struct statvfs v {};
  const bool known = fstatvfs(fd_.get(), &v) == 0;
  if (e == ENOSPC || e == EDQUOT) return no_space(path_, size, known ? free_bytes(v) : 0);
  if (e != EOPNOTSUPP && e != ENOSYS) return system_error("reserve space for", path_, e);
  // posix_fallocate would now write to every block: what the file system says is all there is.
  if (known && free_bytes(v) < size) return no_space(path_, size, free_bytes(v));
  if (ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) return system_error("reserve space for", path_, errno);
  return {};
}

Result<void> File::finish() {
  QB_TRY(sync_fd(fd_.get(), path_));
  struct stat st {};
  if (fstat(fd_.get(), &st) != 0) return system_error("look at", path_, errno);
  fd_ = Fd();
  return out_.record(name_, state_of(st));
}

// Everything that the journal does not vouch for goes.
Result<void> Output::keep_finished(const Journal::Content& old) {
  std::error_code ec;
  std::vector<fs::path> stale;
  for (fs::recursive_directory_iterator it(files_, ec), end; !ec && it != end; it.increment(ec)) {
    struct stat st {};
    if (lstat(it->path().c_str(), &st) != 0 || S_ISDIR(st.st_mode)) continue;
    const std::string name = it->path().lexically_relative(files_).native();
    const auto known = old.files.find(name);
    if (S_ISREG(st.st_mode) && known != old.files.end() && known->second == state_of(st)) {
      finished_.insert(*known);
    } else {
      stale.push_back(it->path());
    }
  }
  if (ec) return system_error("list", files_.native(), ec.value());
  for (const fs::path& p : stale) {
    if (!fs::remove(p, ec) && ec) return system_error("remove", p.native(), ec.value());
  }
  return {};
}

Result<void> Output::prepare(std::string_view fingerprint, uint64_t bytes) {
  std::error_code ec;
  if (const auto old = Journal::read(partial_ / "journal")) {
    const bool same = !fingerprint.empty() && old->fingerprint == fingerprint && fs::is_directory(fs::symlink_status(files_, ec));
    start_ = same ? Start::resumed : Start::restarted;
    if (same) {
      keep_ = true;
      Journal::Content all = *old;
      for (const fs::path& joined : of_joined(partial_, "journal"))
        if (auto more = Journal::read(joined); more && more->fingerprint == fingerprint) all.files.merge(more->files);
      QB_TRY(keep_finished(all));
    }
  }
  if (start_ != Start::resumed) {
    // The journal first: it says whose directory this is, and that none of the files in it are finished.
    QB_ASSIGN(const Journal claim, Journal::create(partial_ / "journal", {std::string(fingerprint), {}}));
    fs::remove_all(files_, ec);
    if (!ec) fs::remove_all(partial_ / "old", ec);
    if (ec) return system_error("remove", files_.native(), ec.value());
    if (mkdir(files_.c_str(), 0777) != 0) return system_error("create", files_.native(), errno);
  }
  uint64_t need = bytes;
  for (const auto& [name, state] : finished_) need -= std::min(need, state.bytes);
  struct statvfs v {};
  if (statvfs(files_.c_str(), &v) != 0) return system_error("look at the file system of", files_.native(), errno);
  if (free_bytes(v) < need) return no_space(out_, need, free_bytes(v));
  QB_ASSIGN(Journal journal, Journal::create(partial_ / "journal", {std::string(fingerprint), finished_}));
  journal_.emplace(std::move(journal));
  for (const fs::path& joined : of_joined(partial_, "journal")) fs::remove(joined, ec);  // what they say stands in ours, or is of another job
  keep_ = false;
  return {};
}

Result<std::unique_ptr<OutputFile>> Output::open(std::string_view file) {
  const fs::path name(file);
  const bool plain =
      !name.empty() && name.is_relative() && name.lexically_normal().native() == file && *name.begin() != ".." && name.has_filename() && name != ".";
  if (!plain) return Error{Errc::invalid_argument, fmt::format("'{}' cannot be the name of an output file", escape(file))};
  const fs::path path = files_ / name;
  std::error_code ec;
  fs::create_directories(path.parent_path(), ec);
  if (ec) return system_error("create", path.parent_path().native(), ec.value());
  {
    const std::scoped_lock lock(mutex_);
    if (const auto it = finished_.find(file); it != finished_.end()) finished_.erase(it);
  }
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!fd) return system_error("create", path.native(), errno);
  return std::unique_ptr<OutputFile>(std::make_unique<File>(*this, name.native(), path.native(), std::move(fd)));
}

Result<void> Output::sync_tree() {
  std::error_code ec;
  for (fs::recursive_directory_iterator it(files_, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code none;
    if (finished_.contains(it->path().lexically_relative(files_).native()) || it->is_symlink(none)) continue;
    QB_TRY(sync_path(it->path()));
  }
  if (ec) return system_error("list", files_.native(), ec.value());
  return sync_path(files_);
}

Result<void> Output::commit() {
  if (out_.empty()) return Error{Errc::invalid_argument, "the process that made the output directory commits it"};
  const std::scoped_lock lock(mutex_);
  QB_TRY(sync_tree());
  // From here on files/ may hold what OUT was: nobody may take it for this job's.
  QB_ASSIGN(Journal journal, Journal::create(partial_ / "journal", {}));
  journal_.emplace(std::move(journal));
  QB_TRY(sync_path(partial_));
  const Result<void> renamed = force_ ? rename_over(files_, out_, partial_ / "old") : rename_new(files_, out_);
  if (!renamed) {
    std::error_code ec;
    keep_ = fs::exists(partial_ / "old", ec);  // the only copy of what was there
    if (renamed.error().code == Errc::exists) return Error{Errc::exists, fmt::format("{} exists by now; --force replaces it", shown(out_))};
    return renamed.error();
  }
  committed_ = true;
  Result<void> synced = sync_path(out_.parent_path());
  remove_partial();
  return synced;
}

void Output::remove_partial() {
  std::error_code ec;  // what cannot be removed is taken up by the next run
  fs::remove_all(files_, ec);
  fs::remove_all(partial_ / "old", ec);
  for (const char* what : {"journal", "lock"})
    for (const fs::path& joined : of_joined(partial_, what)) fs::remove(joined, ec);
  fs::remove(partial_ / "journal.new", ec);
  fs::remove(partial_ / "journal", ec);
  fs::remove(partial_ / "lock", ec);
  fs::remove(partial_, ec);
}

}  // namespace

Result<std::unique_ptr<OutputDirectory>> OutputDirectory::create(const fs::path& out, const fs::path& in, bool force, std::string_view fingerprint,
                                                                 uint64_t bytes) {
  QB_ASSIGN(const fs::path real, resolve_output(out));
  QB_TRY(check_apart(real, in, force));
  QB_TRY(check_absent(real, force));
  fs::path partial = real;
  partial += ".partial";
  QB_TRY(check_apart(partial, in, false));
  QB_ASSIGN(Fd lock, lock_partial(partial));
  for (const fs::path& joined : of_joined(partial, "lock")) QB_TRY(lock_file(joined, writing));  // their processes are gone
  QB_TRY(restore_old(partial, real));
  auto output = std::make_unique<Output>(real, partial, force, std::move(lock));
  QB_TRY(check_absent(real, force));  // the process that held the lock may have made it
  QB_TRY(output->prepare(fingerprint, bytes));
  return std::unique_ptr<OutputDirectory>(std::move(output));
}

Result<std::unique_ptr<OutputDirectory>> OutputDirectory::join(const fs::path& files, int rank, std::string_view fingerprint) {
  const fs::path partial = files.parent_path();
  QB_ASSIGN(Fd lock, lock_file(partial / fmt::format("lock.{}", rank), writing));
  auto first = Journal::read(partial / "journal");
  if (!first || first->fingerprint != fingerprint)
    return Error{Errc::invalid_argument,
                 fmt::format("{} is not the output of the job that this process has planned: do all see the same files?", shown(partial))};
  QB_ASSIGN(Journal journal, Journal::create(partial / fmt::format("journal.{}", rank), {std::string(fingerprint), {}}));
  return std::unique_ptr<OutputDirectory>(std::make_unique<Output>(partial, std::move(lock), std::move(journal), std::move(first->files)));
}

Result<void> write_whole_file(const fs::path& file, std::string_view bytes, bool force) {
  const fs::path partial = file.native() + ".partial";
  const std::string name = shown(file);
  {
    const Fd fd(::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (!fd) return system_error("write", name, errno);
    Result<void> written = write_at(fd.get(), 0, std::as_bytes(std::span(bytes)), name);
    if (written) written = sync_fd(fd.get(), name);
    if (!written) {
      ::unlink(partial.c_str());
      return written.error();
    }
  }
  Result<void> renamed;
  if (!force)
    renamed = rename_new(partial, file);
  else if (::rename(partial.c_str(), file.c_str()) != 0)
    renamed = system_error("write", name, errno);
  if (renamed) return sync_path(file.has_parent_path() ? file.parent_path() : fs::path("."));
  ::unlink(partial.c_str());
  if (renamed.error().code == Errc::exists) return Error{Errc::exists, fmt::format("{} exists; --force replaces it", name)};
  return renamed.error();
}

}  // namespace qb
