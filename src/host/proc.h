// What the kernel's text files say about this process, read without allocating, each from its text so that it can be tested anywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qb::host {

// The whole of a small file, at most 16 KiB of it; empty when it cannot be read.
std::string read_small_file(const char* path);

// Processors that a cgroup v2 cpu.max ("<quota> <period>" or "max <period>") allows, rounded up, at least 1; nothing when it sets no limit.
std::optional<int> quota_of(std::string_view cpu_max);

// The directory of this process in the unified hierarchy, from /proc/self/cgroup ("0::/a/b"); empty when there is none.
std::string_view unified_cgroup(std::string_view proc_self_cgroup);

// Bytes of RssAnon in /proc/self/status; 0 when the line is absent.
uint64_t rss_anon(std::string_view status);

}  // namespace qb::host
