// A processor as a value: any machine's choice of kernels can be made on any machine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qb::host {

// Bits; a kernel needs a set of them.
enum class Feature : uint32_t { none = 0, avx2 = 1, avx512 = 2, avx512_bf16 = 4, avx512_vnni = 8 };
constexpr Feature operator|(Feature a, Feature b) {
  return static_cast<Feature>(static_cast<uint32_t>(a) | static_cast<uint32_t>(b));
}
constexpr bool covers(Feature have, Feature need) {
  return (static_cast<uint32_t>(have) & static_cast<uint32_t>(need)) == static_cast<uint32_t>(need);
}
std::string to_string(Feature);  // avx512+avx512_bf16

struct Cpu {
  std::string name;  // zen4, haswell, ... or "this machine"
  Feature features = Feature::none;
  int cores = 1;
  double clock_ghz = 3;
  double read_gbs = 10;  // one thread from memory
};

Cpu this_cpu();                        // capped by QUANTBRIDGE_ISA=generic|avx2|avx512|avx512_bf16
const std::vector<Cpu>& known_cpus();  // named hosts for `explain --host`

}  // namespace qb::host
