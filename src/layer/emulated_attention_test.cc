// Attention by tiles as it is (attention_amxbf16.cc), but over tiles in memory.
#include "layer/emulated.h"

#if defined(__x86_64__)
#include "kernel/emulated_tiles.h"
#include "layer/attention_tiles.h"

namespace qb::layer {

Sweep emulated_bf16_tiles(const KvLayer& kv) {
  return sweep_of<TileProducts<kernel::EmulatedTiles>>(kv);
}

}  // namespace qb::layer
#else
namespace qb::layer {
Sweep emulated_bf16_tiles(const KvLayer&) {
  return nullptr;
}
}  // namespace qb::layer
#endif
