// A processor as a value: any machine's choice of kernels can be made on any machine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "num/isa.h"

namespace qb::host {

// Bits; a kernel needs a set of them.
enum class Feature : uint32_t { none = 0, avx2 = 1, avx_vnni = 2, avx512 = 4, avx512_bf16 = 8, avx512_vnni = 16, amx_int8 = 32, amx_bf16 = 64 };
constexpr Feature operator|(Feature a, Feature b) {
  return static_cast<Feature>(static_cast<uint32_t>(a) | static_cast<uint32_t>(b));
}
constexpr bool covers(Feature have, Feature need) {
  return (static_cast<uint32_t>(have) & static_cast<uint32_t>(need)) == static_cast<uint32_t>(need);
}
std::string to_string(Feature);                          // avx512+avx512_bf16
std::optional<Feature> feature_named(std::string_view);  // of one bit

// The widest portable loops for such a processor.
constexpr Isa isa_of(Feature f) {
  return covers(f, Feature::avx512) ? Isa::avx512 : covers(f, Feature::avx2) ? Isa::avx2 : Isa::generic;
}

struct Cpu {
  std::string name;  // zen4, haswell, ... or "this machine"
  std::string what;  // AMD Zen 4
  Feature features = Feature::none;
  int cores = 1;
  double clock_ghz = 3;
  double read_gbs = 10;            // one thread from memory
  std::vector<std::string> other;  // what it has that no kernel asks for: amx_bf16
};

// Capped by QUANTBRIDGE_ISA=generic|avx2|avx_vnni|avx512|avx512_bf16. Has tiles (AMX) only where the system, which is asked for them, gives them to this
// process.
Cpu this_cpu();

// A description of a processor (hosts/zen4.json): name, what, features (names of the bits above), other_features, cores, clock_ghz, read_gbs, source: where the
// figures come from. Errors: invalid_argument, with the key.
Result<Cpu> read_cpu(std::string_view json);
std::span<const std::string_view> described();  // the files of hosts/, in the order of their names; generated
const std::vector<Cpu>& known_cpus();           // read from them, lesser ones first

}  // namespace qb::host
