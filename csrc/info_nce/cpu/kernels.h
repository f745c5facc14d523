#pragma once
// The inner loops for this processor's instruction set.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "../../common/instruction_set.h"
#include "../../common/strided.h"

namespace msclr::info_nce_cpu {

template <class S>
struct Kernels {
  using Product = void(int64_t, int64_t, int64_t, Strided<S>, const S*, int64_t, S*, int64_t);
  int64_t lanes;
  Product *product, *product_add;
  void (*column_max)(const S*, int64_t, int64_t, S*);
  void (*weigh)(S*, int64_t, int64_t, const S*, S, S*);
  void (*add)(const S*, int64_t, S*);
  S (*dot)(const S*, const S*, int64_t);
};

#define SIMD_KERNELS "../info_nce/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  return SIMD_CHOOSE(kKernels<S>);
}

}  // namespace msclr::info_nce_cpu
