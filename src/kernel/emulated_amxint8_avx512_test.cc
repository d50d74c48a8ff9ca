// The kernels for AMX-INT8 as they are (linear_int8_amxint8.cc), but over tiles in memory.
#include "kernel/emulated.h"

#if defined(__x86_64__)
#include "kernel/avx512_vnni.h"
#include "kernel/emulated_tiles.h"
#include "kernel/tile_integers.h"

namespace qb::kernel {
namespace {

using V = TiledIntegers<Vnni, EmulatedTiles>;

constexpr Kernel int4 = tile_integer_kernel<V, Weights::int4>("linear_int4_int8_amxint8_emulated_avx512vnni", vnni_needs);
constexpr Kernel int8 = tile_integer_kernel<V, Weights::int8>("linear_int8_int8_amxint8_emulated_avx512vnni", vnni_needs);
constexpr Kernel fp4 = tile_integer_kernel<V, Weights::fp4>("linear_fp4_int8_amxint8_emulated_avx512vnni", vnni_needs);

}  // namespace

std::span<const Kernel* const> emulated_amx_int8_avx512() {
  static constexpr const Kernel* all[] = {&int4, &int8, &fp4};
  return all;
}

}  // namespace qb::kernel
#else
namespace qb::kernel {
std::span<const Kernel* const> emulated_amx_int8_avx512() {
  return {};
}
}  // namespace qb::kernel
#endif
