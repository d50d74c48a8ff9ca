// Kernels for instructions that few processors have, with functions in place of these instructions: the same loops, which every machine of the tests can run.
// For tests alone.
#pragma once

#include <vector>

#include "kernel/kernel.h"

namespace qb::kernel {

std::span<const Kernel* const> emulated_avx_vnni();         // need AVX2
std::span<const Kernel* const> emulated_amx_int8();         // in plain C++
std::span<const Kernel* const> emulated_amx_int8_avx512();  // as they are but for the tiles: need AVX-512 with VNNI
std::span<const Kernel* const> emulated_amx_bf16();
std::span<const Kernel* const> emulated_amx_bf16_avx512();  // with BF16

inline std::vector<const Kernel*> emulated_amx() {
  std::vector<const Kernel*> all;
  for (const auto& some : {emulated_amx_int8(), emulated_amx_int8_avx512(), emulated_amx_bf16(), emulated_amx_bf16_avx512()})
    all.insert(all.end(), some.begin(), some.end());
  return all;
}

// Those that this machine may choose from, and the emulated ones.
inline std::vector<const Kernel*> kernels_and_emulated() {
  std::vector<const Kernel*> all(kernels().begin(), kernels().end());
  const std::span<const Kernel* const> vnni = emulated_avx_vnni();
  all.insert(all.end(), vnni.begin(), vnni.end());
  const std::vector<const Kernel*> tiles = emulated_amx();
  all.insert(all.end(), tiles.begin(), tiles.end());
  return all;
}

}  // namespace qb::kernel
