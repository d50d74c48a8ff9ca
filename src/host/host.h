// This machine: instruction sets (capped by QUANTBRIDGE_ISA=generic|avx2|avx512), processors, resident memory.
#pragma once

#include <cstdint>

#include "base/regex.h"
#include "num/isa.h"

namespace qb::host {

Isa detect_isa();           // what the processor and the system support, capped by the environment variable
int processors();           // usable by this process (affinity and cgroup quota)
uint64_t peak_anonymous();  // bytes: the largest anonymous resident memory seen so far by sample_memory(); Linux /proc/self/status RssAnon
void sample_memory();       // cheap enough to call once per block
double thread_seconds();    // processor time of the calling thread: what other processes take is not in it
Result<std::shared_ptr<const Regex>> compile_regex(std::string_view pattern);  // PCRE2 with match, depth and heap limits

}  // namespace qb::host
