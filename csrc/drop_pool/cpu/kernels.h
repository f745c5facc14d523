#pragma once
// The inner loops for this processor's instruction set; inner_loops.h says what each does.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../../common/instruction_set.h"
#include "../../common/strided.h"

namespace msclr::drop_pool_cpu {

template <class S>
struct Kernels {
  int64_t lanes;
  void (*add_rows)(int64_t, int64_t, const S*, S*);               // rows, width, x, sum
  void (*add_squares)(int64_t, int64_t, const S*, const S*, S*);  // rows, width, x, mean, sum
  S (*sum_sigmoids)(int64_t, const S*, const S*, const S*);       // columns, x, mean, factor
  // width, x, mean, factor, limit, joint, sum, kept
  void (*add_kept)(int64_t, const S*, const S*, const S*, S, S, S*, S*);
  // width, x, mean, factor, limit, plain, dropped, dx
  void (*spread)(int64_t, const S*, const S*, const S*, S, const S*, const S*, S*);
};

#define SIMD_KERNELS "../drop_pool/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  return SIMD_CHOOSE(kKernels<S>);
}

}  // namespace msclr::drop_pool_cpu
