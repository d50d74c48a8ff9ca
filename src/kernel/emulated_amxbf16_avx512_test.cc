// The kernels for AMX-BF16 as they are (linear_amxbf16.cc), but over tiles in memory.
#include "kernel/emulated.h"

#if defined(__x86_64__)
#include "kernel/avx512_bf16.h"
#include "kernel/emulated_tiles.h"
#include "kernel/tile_panels.h"

namespace qb::kernel {
namespace {

using V = TiledPanels<Bf16Dot, EmulatedTiles>;

constexpr Kernel bf16 = tile_panel_kernel<V, Weights::bf16>("linear_bf16_bf16_amxbf16_emulated_avx512bf16", bf16_needs);
constexpr Kernel fp8 = tile_panel_kernel<V, Weights::fp8>("linear_fp8_bf16_amxbf16_emulated_avx512bf16", bf16_needs);
constexpr Kernel fp4 = tile_panel_kernel<V, Weights::fp4>("linear_fp4_bf16_amxbf16_emulated_avx512bf16", bf16_needs);
constexpr Kernel int4 = tile_panel_kernel<V, Weights::int4>("linear_int4_bf16_amxbf16_emulated_avx512bf16", bf16_needs);
constexpr Kernel int8 = tile_panel_kernel<V, Weights::int8>("linear_int8_bf16_amxbf16_emulated_avx512bf16", bf16_needs);

}  // namespace

std::span<const Kernel* const> emulated_amx_bf16_avx512() {
  static constexpr const Kernel* all[] = {&bf16, &fp8, &fp4, &int4, &int8};
  return all;
}

}  // namespace qb::kernel
#else
namespace qb::kernel {
std::span<const Kernel* const> emulated_amx_bf16_avx512() {
  return {};
}
}  // namespace qb::kernel
#endif
