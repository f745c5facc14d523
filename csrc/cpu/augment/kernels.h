#pragma once
// The inner loops for this processor's instruction set.

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../strided.h"
#include "draws.h"

namespace msclr::augment_cpu {

struct Kernels {
  bool (*any_16)(const uint16_t*, int64_t);
  bool (*any_32)(const uint32_t*, int64_t);
  void (*widen_bfloat16)(const uint16_t*, int64_t, float*);
  void (*widen_half)(const uint16_t*, int64_t, float*);
  void (*transform)(const float*, int64_t, const Draws&, bool, uint32_t, const Counter&, float*);
  void (*blur)(const float*, int64_t, int64_t, const float*, float*);
  void (*subtract)(const float*, const float*, int64_t, float*);
  void (*narrow_bfloat16)(const float*, int64_t, uint16_t*);
  void (*narrow_half)(const float*, int64_t, uint16_t*);
  int64_t lanes;
};

#define SIMD_KERNELS "augment/inner_loops.h"
#include "../simd_targets.h"
#undef SIMD_KERNELS

inline const Kernels& kernels() {
  static const Kernels& best = SIMD_CHOOSE(kKernels);
  return best;
}

}  // namespace msclr::augment_cpu
