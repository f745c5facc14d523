#pragma once
// The inner loops for this processor's instruction set.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "../../common/instruction_set.h"
#include "../../common/strided.h"

namespace msclr::multi_view_cpu {

// Anchors and candidates meet in tiles of so many rows and columns at the most, which stay in the
// second-level cache with the rows that they are made of.
constexpr int64_t kBlock = 128;

// A logit that takes no part: its power is exactly 0, and so is 0 times it.
template <class S>
constexpr S kMasked = std::numeric_limits<S>::lowest();

// Tiles have rows of kBlock numbers, of which `width` are looked at, whole vectors. Logits x are in
// units of log 2, so that exp(s) = 2^x.
template <class S>
struct Kernels {
  using Product = void(int64_t, int64_t, int64_t, Strided<S>, const S*, int64_t, S*, int64_t);
  int64_t lanes;
  Product *product, *product_add;
  void (*sums)(const S*, int64_t, int64_t, S*, S*);
  void (*row_sums)(const S*, int64_t, int64_t, S*, S*);
  void (*column_sums)(const S*, int64_t, int64_t, S*, S*);
  S (*weigh_near)(S*, int64_t, int64_t, const S*, const S*);
  S (*weigh_far)(S*, int64_t, int64_t, const S*, const S*);
};

#define SIMD_KERNELS "../multi_view/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  return SIMD_CHOOSE(kKernels<S>);
}

}  // namespace msclr::multi_view_cpu
