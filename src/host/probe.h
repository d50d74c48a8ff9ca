// What a machine can do at most, as loops to be timed: reading memory, and multiplying in registers. A measurement of anything else is a fraction of these,
// taken in the same second, because the neighbours of a virtual machine change its speed from one minute to the next.
//
// Non-goals: timing (the caller's), peaks of instructions that no kernel here uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "host/cpu.h"
#include "num/isa.h"

namespace qb::host {

// Reads all bytes (but a rest of less than 256) with plain loads as wide as `isa` has them; what it returns keeps the reads alive.
uint64_t read_bytes(std::span<const std::byte> bytes, Isa isa);

// Additions that wait for each other, one in a cycle. Returns how many there were.
double add_in_turn(Feature features, int64_t rounds);

// Multiply-adds of twelve independent sums that stay in registers. Returns how many there were: `rounds` times a constant.
double multiply_f32(Feature features, int64_t rounds);  // by FMA where there is one
double multiply_bf16(Feature features,
                     int64_t rounds);  // pairs of bfloat16, by tiles where there are; as multiply_f32 where the processor has no such instruction
double multiply_int8(Feature features, int64_t rounds);  // fours of bytes by tiles or VNNI, or pairs of words; as multiply_f32 where the processor has neither

}  // namespace qb::host
