// Kernels that multiply integers with tiles (AMX-INT8; Sapphire Rapids and later), for many tokens: the panels, prepared activations and corrections of the
// kernels with VNNI. Tests run the same code over tiles in memory too (emulated_tiles.h), which are those of an Emerald Rapids bit for bit (tiles_test.cc).
#if defined(__x86_64__)
#include "kernel/avx512_vnni.h"
#include "kernel/tile_integers.h"

namespace qb::kernel {
namespace {

using V = TiledIntegers<Vnni, host::AmxTiles>;

constexpr host::Feature amx_needs = vnni_needs | host::Feature::amx_int8;

}  // namespace

QB_KERNEL(linear_int4_int8_amxint8) = tile_integer_kernel<V, Weights::int4>("linear_int4_int8_amxint8", amx_needs);
QB_KERNEL(linear_int8_int8_amxint8) = tile_integer_kernel<V, Weights::int8>("linear_int8_int8_amxint8", amx_needs);
QB_KERNEL(linear_fp4_int8_amxint8) = tile_integer_kernel<V, Weights::fp4>("linear_fp4_int8_amxint8", amx_needs);

}  // namespace qb::kernel
#endif
