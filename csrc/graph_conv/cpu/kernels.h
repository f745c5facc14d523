#pragma once
// The inner loops for this processor's instruction set.

#include <bit>
#include <cstdint>
#include <iterator>
#include <vector>

#include "../../common/instruction_set.h"
#include "../../common/strided.h"
#include "terms.h"

namespace msclr::graph_conv_cpu {

template <class S>
struct Kernels {
  using Product = void(int64_t, int64_t, int64_t, Strided<S>, const S*, int64_t, S*, int64_t);
  int64_t lanes;
  Product *product, *product_add;
  void (*gather)(const Terms<S>&, int64_t, int64_t, const S*, int64_t, S*);
  void (*link_products)(const std::vector<Link>&, int64_t, int64_t, const S*, const S*, S*);
  void (*copy_rows)(const S*, int64_t, int64_t, int64_t, S*, int64_t, int64_t);
};

#define SIMD_KERNELS "../graph_conv/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  return SIMD_CHOOSE(kKernels<S>);
}

}  // namespace msclr::graph_conv_cpu
