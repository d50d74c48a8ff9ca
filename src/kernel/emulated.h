// Kernels for instructions that few processors have, with functions in place of these instructions: the same loops, which every machine of the tests can run.
// For tests alone.
#pragma once

#include <vector>

#include "kernel/kernel.h"

namespace qb::kernel {

std::span<const Kernel* const> emulated_avx_vnni();  // need AVX2

// Those that this machine may choose from, and the emulated ones.
inline std::vector<const Kernel*> kernels_and_emulated() {
  std::vector<const Kernel*> all(kernels().begin(), kernels().end());
  for (const auto& some : {emulated_avx_vnni()}) all.insert(all.end(), some.begin(), some.end());
  return all;
}

}  // namespace qb::kernel
