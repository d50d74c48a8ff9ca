// How wide the vector code of a portable loop may be. The result never depends on it: a test compares all levels bit for bit.
#pragma once

#include <cstdint>

namespace qb {

enum class Isa : uint8_t { generic, avx2, avx512 };  // avx512: F, BW, DQ, VL

}  // namespace qb
