#pragma once
// The inner loops for this processor's instruction set.

#include <bit>
#include <cstdint>
#include <iterator>
#include <vector>

#include "../strided.h"
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
  void (*widen)(const uint16_t*, int64_t, int64_t, int64_t, S*, int64_t);
  void (*narrow)(const S*, int64_t, int64_t, int64_t, uint16_t*, int64_t);
};

#define SIMD_KERNELS "graph_conv/inner_loops.h"
#include "../simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  static const Kernels<S>& best = SIMD_CHOOSE(kKernels<S>);
  return best;
}

}  // namespace msclr::graph_conv_cpu
