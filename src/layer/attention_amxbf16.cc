// Attention by tiles (AMX-BF16; Sapphire Rapids and later).
#if defined(__x86_64__)
#include "layer/attention_tiles.h"

namespace qb::layer {

Sweep bf16_tiles(const KvLayer& kv) {
  return sweep_of<TileProducts<host::AmxTiles>>(kv);
}

}  // namespace qb::layer
#else
#include "layer/attention_pass.h"

namespace qb::layer {
Sweep bf16_tiles(const KvLayer&) {
  return nullptr;
}
}  // namespace qb::layer
#endif
