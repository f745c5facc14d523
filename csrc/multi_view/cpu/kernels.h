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

// What makes 2^((x - shift) * unit + log2) the gradient of negatives, of some anchors; and what x
// is taken relative to in the sum of gradient times x, of which it changes nothing but the
// rounding.
template <class S>
struct FarAnchors {
  const S *shift, *log2, *base;
};

// Tiles have rows of kBlock numbers, of which `width` are looked at, whole vectors. Numbers x times
// `unit` are logits in units of log 2; where there is none, x are.
template <class S>
struct Kernels {
  using Product = void(int64_t, int64_t, int64_t, Strided<S>, const S*, int64_t, S*, int64_t);
  int64_t lanes;
  Product *product, *product_add;
  void (*sums)(const S*, int64_t, int64_t, S*, S*);
  void (*row_sums)(const S*, int64_t, int64_t, S, S*, S*);
  void (*column_sums)(const S*, int64_t, int64_t, S, S*, S*);
  S (*weigh_near)(S*, int64_t, int64_t, const S*, const S*);
  S (*weigh_far)(S*, int64_t, int64_t, S, const FarAnchors<S>&, const FarAnchors<S>&);
};

#define SIMD_KERNELS "../multi_view/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  return SIMD_CHOOSE(kKernels<S>);
}

}  // namespace msclr::multi_view_cpu
