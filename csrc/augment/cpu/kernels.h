#pragma once
// The inner loops for this processor's instruction set.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../common/instruction_set.h"
#include "../../common/strided.h"
#include "draws.h"

namespace msclr::augment_cpu {

struct Kernels {
  bool (*any_16)(const uint16_t*, int64_t);
  bool (*any_32)(const uint32_t*, int64_t);
  void (*transform)(const float*, int64_t, const Draws&, bool, uint32_t, const Counter&, float*);
  void (*blur)(const float*, int64_t, int64_t, const float*, float*);
  void (*subtract)(const float*, const float*, int64_t, float*);
  int64_t lanes;
};

#define SIMD_KERNELS "../augment/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

inline const Kernels& kernels() { return SIMD_CHOOSE(kKernels); }

}  // namespace msclr::augment_cpu
