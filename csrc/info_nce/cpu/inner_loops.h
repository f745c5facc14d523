// The inner loops of InfoNCE, for one instruction set: see simd.h, which is included here, for what
// must be defined before.

#include "../../common/simd.h"

#include "../../common/exp2.h"

// The largest number of each column of x (rows, width); NaN is passed over.
template <class S>
SIMD_TARGET void column_max(const S* x, int64_t rows, int64_t width, S* largest) {
  constexpr int64_t L = kLanes<S>;
  each_columns<S>(width, [&]<int N>(int64_t c, std::integral_constant<int, N>) SIMD_TARGET {
    Vector<S> top[N];
    for (int i = 0; i < N; ++i) top[i] = Vector<S>{} - std::numeric_limits<S>::infinity();
    for (int64_t r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const Vector<S> v = load(x + r * width + c + i * L);
        top[i] = v > top[i] ? v : top[i];
      }
    for (int i = 0; i < N; ++i) store(largest + c + i * L, top[i]);
  });
}

// x (rows, width) becomes 2^((x - shift) * factor), shift being a number per column; and its sums.
template <class S>
SIMD_TARGET void weigh(S* x, int64_t rows, int64_t width, const S* shift, S factor, S* sum) {
  constexpr int64_t L = kLanes<S>;
  each_columns<S>(width, [&]<int N>(int64_t c, std::integral_constant<int, N>) SIMD_TARGET {
    Vector<S> low[N], total[N] = {};
    for (int i = 0; i < N; ++i) low[i] = load(shift + c + i * L);
    for (int64_t r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        S* at = x + r * width + c + i * L;
        const Vector<S> weight = exp2_of<S>((load(at) - low[i]) * factor);
        total[i] += weight;
        store(at, weight);
      }
    for (int i = 0; i < N; ++i) store(sum + c + i * L, total[i]);
  });
}

// to += x, whole vectors
template <class S>
SIMD_TARGET void add(const S* x, int64_t n, S* to) {
  for (int64_t i = 0; i < n; i += kLanes<S>) store(to + i, load(to + i) + load(x + i));
}

template <class S>
SIMD_TARGET S dot(const S* a, const S* b, int64_t n) {
  constexpr int64_t L = kLanes<S>;
  Vector<S> sum = {};
  int64_t i = 0;
  for (; i + L <= n; i += L) sum += load(a + i) * load(b + i);
  S total = sum_lanes<S>(sum);
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

template <class S>
constexpr Kernels<S> kKernels = {
    .lanes = kLanes<S>,
    .product = &product<S, false>,
    .product_add = &product<S, true>,
    .column_max = &column_max<S>,
    .weigh = &weigh<S>,
    .add = &add<S>,
    .dot = &dot<S>,
};
