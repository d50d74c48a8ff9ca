// What this processor can do, and named processors to plan for.
#include "host/cpu.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "host/host.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace qb::host {
namespace {

constexpr Feature vex = Feature::avx2 | Feature::avx_vnni, tiles = Feature::amx_int8 | Feature::amx_bf16;

#if defined(__x86_64__)
// Whether the system saves tiles and their shapes (XCR0, bits 17 and 18). Precondition: it saves the wide registers, so there is XGETBV.
bool keeps_tiles() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low >> 17 & 3U) == 3;
}
#endif

Feature supported() {
#if defined(__x86_64__)
  // The builtins ask the operating system too (XCR0), so a system that does not save the wide registers counts as a processor without them.
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c >> 29 & 1U) != 0;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !f16c) return Feature::none;
  // Extended features, second part: 0 where there is none.
  const unsigned more = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 ? a : 0;
  const Feature narrow = (more >> 4 & 1U) != 0 ? Feature::avx2 | Feature::avx_vnni : Feature::avx2;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return narrow;
  }
  Feature f = narrow | Feature::avx512;
  // Kernels for bf16 dot products also decode with byte permutations: Cooper Lake, which has the one without the other, counts as avx512.
  if ((more >> 5 & 1U) != 0 && __builtin_cpu_supports("avx512vbmi")) f = f | Feature::avx512_bf16;
  if (__builtin_cpu_supports("avx512vnni")) f = f | Feature::avx512_vnni;
  const unsigned extended = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 ? d : 0;
  if ((extended >> 24 & 1U) == 0 || !keeps_tiles()) return f;
  if ((extended >> 25 & 1U) != 0) f = f | Feature::amx_int8;
  if ((extended >> 22 & 1U) != 0) f = f | Feature::amx_bf16;
  return f;
#else
  return Feature::none;
#endif
}

// Linux gives tiles to processes that ask for them (5.16 and later), for all of their threads; where one of these has too small a stack for signals, to none.
bool granted_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h, XFEATURE_XTILEDATA
  static const bool granted = ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
#else
  return false;
#endif
}

Feature cap() {
  const char* value = std::getenv("QUANTBRIDGE_ISA");
  const std::string_view word = value == nullptr ? "" : value;
  if (word == "generic") return Feature::none;
  if (word == "avx2") return Feature::avx2;
  if (word == "avx_vnni") return vex;
  if (word == "avx512") return vex | Feature::avx512 | Feature::avx512_vnni;
  constexpr Feature without_tiles = vex | Feature::avx512 | Feature::avx512_bf16 | Feature::avx512_vnni;
  return word == "avx512_bf16" ? without_tiles : without_tiles | tiles;  // the latter for a word that is not known too
}

struct Name {
  Feature bit;
  std::string_view name;
};
constexpr Name names[] = {{Feature::avx2, "avx2"},
                          {Feature::avx_vnni, "avx_vnni"},
                          {Feature::avx512, "avx512"},
                          {Feature::avx512_bf16, "avx512_bf16"},
                          {Feature::avx512_vnni, "avx512_vnni"},
                          {Feature::amx_int8, "amx_int8"},
                          {Feature::amx_bf16, "amx_bf16"}};

constexpr Feature both(Feature a, Feature b) {
  return static_cast<Feature>(static_cast<uint32_t>(a) & static_cast<uint32_t>(b));
}
constexpr Feature without(Feature a, Feature b) {
  return static_cast<Feature>(static_cast<uint32_t>(a) & ~static_cast<uint32_t>(b));
}

}  // namespace

std::string to_string(Feature f) {
  std::string s;
  for (const Name& n : names) {
    if (!covers(f, n.bit)) continue;
    if (!s.empty()) s += '+';
    s += n.name;
  }
  return s.empty() ? "generic" : s;
}

std::optional<Feature> feature_named(std::string_view word) {
  for (const Name& n : names)
    if (n.name == word) return n.bit;
  return std::nullopt;
}

Cpu this_cpu() {
  Feature features = both(supported(), cap());
  if (both(features, tiles) != Feature::none && !granted_tiles()) features = without(features, tiles);
  // Clock and bandwidth are taken as usual, not measured: a choice of kernels must be the same in every run. Measured on a Zen 4 guest: 3.66 GHz, 26 to 32
  // GB/s.
  return Cpu{.name = "this machine", .features = features, .cores = processors(), .clock_ghz = 3.6, .read_gbs = 25};
}

const std::vector<Cpu>& known_cpus() {
  static const std::vector<Cpu> all = [] {
    std::vector<Cpu> cpus;
    for (const std::string_view text : described()) {
      Result<Cpu> cpu = read_cpu(text);
      if (!cpu) std::abort();  // a file of ours
      cpus.push_back(std::move(*cpu));
    }
    std::sort(cpus.begin(), cpus.end(), [](const Cpu& a, const Cpu& b) { return std::pair(a.features, a.name) < std::pair(b.features, b.name); });
    return cpus;
  }();
  return all;
}

Isa detect_isa() {
  return isa_of(this_cpu().features);
}

}  // namespace qb::host
