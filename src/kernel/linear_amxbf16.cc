// Panel kernels with tiles (AMX-BF16; Sapphire Rapids and later), for many tokens: the panels and prepared activations of the kernels with BF16 dot products.
// Tests run the same code over tiles in memory too (emulated_tiles.h), which are those of an Emerald Rapids bit for bit (tiles_test.cc).
//
// tdpbf16ps adds up even and odd columns of a step apart, by multiply-adds that begin with 0, then both, then what there was. So in a step of at most 16 pairs
// a product meets a rounding for each pair and two more, and one in every step that follows: not more than there are columns, and 8 (kernel.h).
#if defined(__x86_64__)
#include "kernel/avx512_bf16.h"
#include "kernel/tile_panels.h"

namespace qb::kernel {
namespace {

using V = TiledPanels<Bf16Dot, host::AmxTiles>;

constexpr host::Feature amx_needs = bf16_needs | host::Feature::amx_bf16;

}  // namespace

QB_KERNEL(linear_bf16_bf16_amxbf16) = tile_panel_kernel<V, Weights::bf16>("linear_bf16_bf16_amxbf16", amx_needs);
QB_KERNEL(linear_fp8_bf16_amxbf16) = tile_panel_kernel<V, Weights::fp8>("linear_fp8_bf16_amxbf16", amx_needs);
QB_KERNEL(linear_fp4_bf16_amxbf16) = tile_panel_kernel<V, Weights::fp4>("linear_fp4_bf16_amxbf16", amx_needs);
QB_KERNEL(linear_int4_bf16_amxbf16) = tile_panel_kernel<V, Weights::int4>("linear_int4_bf16_amxbf16", amx_needs);
QB_KERNEL(linear_int8_bf16_amxbf16) = tile_panel_kernel<V, Weights::int8>("linear_int8_bf16_amxbf16", amx_needs);

}  // namespace qb::kernel
#endif
