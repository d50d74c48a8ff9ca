#include "exec/xxh3.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <cstdlib>

namespace qb {

void xxh3_update_generic(void* state, const void* bytes, size_t count) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state), bytes, count);
}

void Xxh3::Free::operator()(void* state) const {
  XXH3_freeState(static_cast<XXH3_state_t*>(state));
}

Xxh3::Xxh3(Isa isa) : update_(isa == Isa::generic ? xxh3_update_generic : xxh3_update_avx2), state_(XXH3_createState()) {
  if (state_ == nullptr) std::abort();  // 576 bytes
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_.get()));
}

uint64_t Xxh3::digest() const {
  return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_.get()));
}

std::string xxh3_hex(uint64_t digest) {
  return fmt::format("{:016x}", digest);
}

}  // namespace qb
