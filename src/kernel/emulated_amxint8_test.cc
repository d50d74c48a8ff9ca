// The kernels for AMX-INT8 in plain C++, over tiles in memory.
#include "kernel/emulated.h"
#include "kernel/emulated_tiles.h"
#include "kernel/generic_integers.h"
#include "kernel/tile_integers.h"

namespace qb::kernel {
namespace {

struct Bytes : Words<int8_t> {
  static void bytes_fp4(const std::byte* line, std::byte* out) {
    bytes4(line, out);
    for (int i = 0; i < 128; ++i) out[i] = static_cast<std::byte>(static_cast<int>(2 * decode_e2m1(std::to_integer<uint8_t>(out[i]))) + 12);
  }
  static Float scales(const std::byte* bytes) {
    Float a;
    for (int r = 0; r < 16; ++r) a.v[r] = decode_e4m3(std::to_integer<uint8_t>(bytes[r]));
    return a;
  }
  static Float powers(const std::byte* bytes) {
    Float a;
    for (int r = 0; r < 16; ++r) a.v[r] = decode_e8m0(std::to_integer<uint8_t>(bytes[r]));
    return a;
  }
};
using V = TiledIntegers<Bytes, EmulatedTiles>;

constexpr Kernel int4 = tile_integer_kernel<V, Weights::int4>("linear_int4_int8_amxint8_emulated", host::Feature::none);
constexpr Kernel int8 = tile_integer_kernel<V, Weights::int8>("linear_int8_int8_amxint8_emulated", host::Feature::none);
constexpr Kernel fp4 = tile_integer_kernel<V, Weights::fp4>("linear_fp4_int8_amxint8_emulated", host::Feature::none);

}  // namespace

std::span<const Kernel* const> emulated_amx_int8() {
  static constexpr const Kernel* all[] = {&int4, &int8, &fp4};
  return all;
}

}  // namespace qb::kernel
