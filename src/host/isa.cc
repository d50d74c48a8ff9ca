#include <cstdlib>
#include <string_view>

#include "host/host.h"

namespace qb::host {
namespace {

Isa supported() {
#if defined(__x86_64__)
  // The builtins ask the operating system too (XCR0), so a kernel that does not save the wide registers counts as a processor without them.
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::generic;
}

Isa cap() {
  const char* value = std::getenv("QUANTBRIDGE_ISA");
  const std::string_view word = value == nullptr ? "" : value;
  if (word == "generic") return Isa::generic;
  if (word == "avx2") return Isa::avx2;
  return Isa::avx512;  // also for a word that is not known
}

}  // namespace

Isa detect_isa() {
  const Isa have = supported(), limit = cap();
  return have < limit ? have : limit;
}

}  // namespace qb::host
