// Sixteen float32 sums as a register of AVX-512, for panel_body.h. As that, compiled for the instruction set of the including file, which defines QB_KI;
// everything has internal linkage.
#pragma once

namespace qb::kernel {
namespace {

struct FloatSums512 {
  using Acc = __m512;
  QB_KI static Acc zero() { return _mm512_setzero_ps(); }
  QB_KI static Acc load(const float* p) { return _mm512_loadu_ps(p); }
  QB_KI static void store(float* p, Acc a) { _mm512_storeu_ps(p, a); }
  QB_KI static Acc splat(float x) { return _mm512_set1_ps(x); }
  QB_KI static Acc add(Acc a, Acc b) { return _mm512_add_ps(a, b); }
  QB_KI static Acc mul_add(Acc a, Acc b, Acc c) { return _mm512_fmadd_ps(a, b, c); }
};

}  // namespace
}  // namespace qb::kernel
