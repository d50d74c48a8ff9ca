#include "num/hadamard.h"

namespace qb {

void hadamard(double* x, int64_t n, int64_t width) {
  for (int64_t half = 1; half < n; half *= 2) {
    const int64_t run = half * width;
    for (double* a = x; a < x + n * width; a += 2 * run) {
      double* const b = a + run;
      for (int64_t i = 0; i < run; ++i) {
        const double sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
}

double random_sign(uint64_t index) {
  uint64_t z = (index + 1) * 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return ((z ^ (z >> 31)) >> 63) == 0 ? 1 : -1;
}

}  // namespace qb
