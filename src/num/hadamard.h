// Products with Hadamard's matrices of Sylvester's order, n log n sums for each, and signs that look random and are the same everywhere.
//
// Goals: the same bits for every caller and machine; no memory for the matrix. Non-goals: other orders of Hadamard matrices, the factor that makes it
// orthogonal.
#pragma once

#include <cstdint>

namespace qb {

// `width` vectors of n numbers, number i of vector c at x[i * width + c], each times the matrix whose element (p, q) is (-1)^(bits that p and q share), in
// place. n is a power of two.
void hadamard(double* x, int64_t n, int64_t width);

// 1 or -1: the first bit of output number `index` of SplitMix64 (Steele, Lea and Flood, 2014) from the seed 0.
double random_sign(uint64_t index);

}  // namespace qb
