#pragma once
// The inner loops for this processor's instruction set.

#include "../../common/instruction_set.h"
#include "../../common/philox.h"
#include "../../common/strided.h"
#include "../../temporal_conv/cpu/kernels.h"

namespace msclr::block_cpu {

using temporal_conv_cpu::RowsAt;

template <class S>
struct Kernels {
  // first group, groups, counter, threshold, kept, factors
  void (*dropout_factors)(int64_t, int64_t, const Counter&, uint32_t, S, S*);
  // rows, width, h, norm, factors, r, norm of r, y
  void (*output)(int64_t, int64_t, RowsAt<const S>, RowsAt<const S>, RowsAt<const S>,
                 RowsAt<const S>, RowsAt<const S>, RowsAt<S>);
  // rows, width, dy, y, h, factors, r, d, z, sums
  void (*output_gradient)(int64_t, int64_t, RowsAt<const S>, RowsAt<const S>, RowsAt<const S>,
                          RowsAt<const S>, RowsAt<const S>, RowsAt<S>, RowsAt<S>, RowsAt<S>);
  // n, added, gate, to
  void (*add_where)(int64_t, const S*, const S*, S*);
};

#define SIMD_KERNELS "../block/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  return SIMD_CHOOSE(kKernels<S>);
}

}  // namespace msclr::block_cpu
