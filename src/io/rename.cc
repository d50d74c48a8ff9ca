#include "io/rename.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/diagnostics.h"
#include "io/posix_file.h"

namespace qb {

namespace {

constexpr unsigned no_replace = 1;  // RENAME_NOREPLACE, RENAME_EXCHANGE: not in every C library's headers
constexpr unsigned exchange = 2;

// 0, or errno.
int rename_with([[maybe_unused]] const std::filesystem::path& from, [[maybe_unused]] const std::filesystem::path& to, [[maybe_unused]] unsigned flags) {
#ifdef SYS_renameat2
  return syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

bool lacks_flags(int errnum) {
  return errnum == ENOSYS || errnum == EINVAL || errnum == ENOTSUP || errnum == EOPNOTSUPP;
}

int plain_rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  return rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

bool present(const std::filesystem::path& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

Error cannot_rename(const std::filesystem::path& from, const std::filesystem::path& to, int errnum) {
  return system_error(fmt::format("rename {} to", escape(from.native())), to.native(), errnum);
}

}  // namespace

Result<void> rename_new(const std::filesystem::path& from, const std::filesystem::path& to, RenameFlags flags) {
  int e = flags == RenameFlags::tried ? rename_with(from, to, no_replace) : ENOSYS;
  if (lacks_flags(e)) e = present(to) ? EEXIST : plain_rename(from, to);
  if (e == ENOTEMPTY) e = EEXIST;
  return e == 0 ? Result<void>() : cannot_rename(from, to, e);
}

Result<void> rename_over(const std::filesystem::path& from, const std::filesystem::path& to, const std::filesystem::path& old, RenameFlags flags) {
  int e = flags == RenameFlags::tried ? rename_with(from, to, exchange) : ENOSYS;
  if (e == 0) return {};
  if (e == ENOENT) return rename_new(from, to, flags);
  if (!lacks_flags(e)) return cannot_rename(from, to, e);
  if (!present(to)) return rename_new(from, to, flags);
  e = plain_rename(to, old);
  if (e != 0) return cannot_rename(to, old, e);
  e = plain_rename(from, to);
  if (e == 0) return {};
  const Error error = cannot_rename(from, to, e);
  if (plain_rename(old, to) != 0) return Error{error.code, fmt::format("{}; what was there is now at {}", error.what, escape(old.native()))};
  return error;
}

}  // namespace qb
