// Renames that never show a half-made directory, with fallbacks where the file system lacks renameat2's flags (NFS, some FUSE). POSIX.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace qb {

// Whether the file system is asked for the flags at all; tests take the fallbacks by saying no.
enum class RenameFlags : bool { lacking, tried };

// Fails with `exists` where `to` exists. The fallback looks first: a directory that appears in between is replaced only if it is empty.
Result<void> rename_new(const std::filesystem::path& from, const std::filesystem::path& to, RenameFlags flags = RenameFlags::tried);

// `from` becomes `to`; what `to` was becomes `old` (which must not exist) or `from`. `to` may be absent. The fallback takes two renames: a crash between them
// leaves no `to`, and at `old` what it was.
Result<void> rename_over(const std::filesystem::path& from, const std::filesystem::path& to, const std::filesystem::path& old,
                         RenameFlags flags = RenameFlags::tried);

}  // namespace qb
