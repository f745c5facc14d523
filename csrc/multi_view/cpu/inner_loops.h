// The inner loops of multi-view InfoNCE, for one instruction set: see simd.h, which is included
// here, for what must be defined before.

#include "../../common/simd.h"

#include "../../common/exp2.h"

// 2^x, and exactly 0 where that is below the smallest number.
template <class S>
SIMD_INLINE Vector<S> power(Vector<S> x) {
  const Vector<S> lowest = Vector<S>{} + S(std::numeric_limits<S>::min_exponent - 1);
  return x < lowest ? Vector<S>{} : exp2_of<S>(x);
}

// The sums of 2^x over every row and every column.
template <class S>
SIMD_TARGET void sums(const S* x, int64_t rows, int64_t width, S* row_sum, S* column_sum) {
  constexpr int64_t L = kLanes<S>;
  std::fill_n(row_sum, rows, S(0));
  each_columns<S>(width, [&]<int N>(int64_t c, std::integral_constant<int, N>) SIMD_TARGET {
    Vector<S> down[N] = {};
    for (int64_t r = 0; r < rows; ++r) {
      Vector<S> across = {};
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const Vector<S> p = power<S>(load(x + r * kBlock + c + i * L));
        down[i] += p;
        across += p;
      }
      row_sum[r] += sum_lanes<S>(across);
    }
    for (int i = 0; i < N; ++i) store(column_sum + c + i * L, down[i]);
  });
}

// Of every row the largest x and the sum of 2^((x - largest) * unit); where all are masked that sum
// is 0.
template <class S>
SIMD_TARGET void row_sums(const S* x, int64_t rows, int64_t width, S unit, S* largest, S* sum) {
  constexpr int64_t L = kLanes<S>;
  for (int64_t r = 0; r < rows; ++r, x += kBlock) {
    Vector<S> top = Vector<S>{} + kMasked<S> / 2, total = {};
    for (int64_t c = 0; c < width; c += L) {
      const Vector<S> v = load(x + c);
      top = v > top ? v : top;
    }
    S most = top[0];
    for (int64_t i = 1; i < L; ++i) most = std::max<S>(most, top[i]);
    for (int64_t c = 0; c < width; c += L) total += power<S>((load(x + c) - most) * unit);
    largest[r] = most;
    sum[r] = sum_lanes<S>(total);
  }
}

// The same of every column.
template <class S>
SIMD_TARGET void column_sums(const S* x, int64_t rows, int64_t width, S unit, S* largest, S* sum) {
  constexpr int64_t L = kLanes<S>;
  for (int64_t c = 0; c < width; c += L) {
    Vector<S> top = Vector<S>{} + kMasked<S> / 2, total = {};
    for (int64_t r = 0; r < rows; ++r) {
      const Vector<S> v = load(x + r * kBlock + c);
      top = v > top ? v : top;
    }
    for (int64_t r = 0; r < rows; ++r) total += power<S>((load(x + r * kBlock + c) - top) * unit);
    store(largest + c, top);
    store(sum + c, total);
  }
}

// x becomes g = 2^x (row + column); returns the sum of g x.
template <class S>
SIMD_TARGET S weigh_near(S* x, int64_t rows, int64_t width, const S* row, const S* column) {
  constexpr int64_t L = kLanes<S>;
  Vector<S> total[2] = {};
  for (int64_t r = 0; r < rows; ++r, x += kBlock)
#pragma GCC unroll 2
    for (int64_t c = 0; c < width; c += L) {
      const Vector<S> logit = load(x + c), g = power<S>(logit) * (row[r] + load(column + c));
      total[c / L % 2] += g * logit;
      store(x + c, g);
    }
  return sum_lanes<S>(total[0] + total[1]);
}

// x becomes g = row + column, of each 2^((x - shift) * unit + log2); returns the sum of each times
// x - base.
template <class S>
SIMD_TARGET S weigh_far(S* x, int64_t rows, int64_t width, S unit, const FarAnchors<S>& row,
                        const FarAnchors<S>& column) {
  Vector<S> total = {};
  for (int64_t r = 0; r < rows; ++r, x += kBlock)
    for (int64_t c = 0; c < width; c += kLanes<S>) {
      const Vector<S> v = load(x + c);
      const Vector<S> across = power<S>((v - row.shift[r]) * unit + row.log2[r]);
      const Vector<S> down = power<S>((v - load(column.shift + c)) * unit + load(column.log2 + c));
      total += across * (v - row.base[r]) + down * (v - load(column.base + c));
      store(x + c, across + down);
    }
  return sum_lanes<S>(total);
}

template <class S>
constexpr Kernels<S> kKernels = {
    .lanes = kLanes<S>,
    .product = &product<S, false>,
    .product_add = &product<S, true>,
    .sums = &sums<S>,
    .row_sums = &row_sums<S>,
    .column_sums = &column_sums<S>,
    .weigh_near = &weigh_near<S>,
    .weigh_far = &weigh_far<S>,
};
