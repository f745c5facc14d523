// The inner loops of drop_pool for one instruction set: see simd.h, which is included here, for
// what must be defined before. Rows are `width` numbers apart, a multiple of the lanes.

#include "../../common/simd.h"

#include "../../common/exp2.h"

template <class S>
SIMD_TARGET void add_rows(int64_t rows, int64_t width, const S* x, S* sum) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    Vector<S> total = {};
    for (int64_t r = 0; r < rows; ++r) total += load(x + r * width + c);
    store(sum + c, total);
  }
}

template <class S>
SIMD_TARGET void add_squares(int64_t rows, int64_t width, const S* x, const S* mean, S* sum) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const Vector<S> middle = load(mean + c);
    Vector<S> total = {};
    for (int64_t r = 0; r < rows; ++r) {
      const Vector<S> centred = load(x + r * width + c) - middle;
      total += centred * centred;
    }
    store(sum + c, total);
  }
}

// (x - mean)^2 * factor + 1/2
template <class S>
SIMD_INLINE Vector<S> energy(const S* x, const S* mean, const S* factor) {
  const Vector<S> centred = load(x) - load(mean);
  return centred * centred * load(factor) + S(0.5);
}

// The sum of sigmoid(energy) over the first `columns` numbers of a row.
template <class S>
SIMD_TARGET S sum_sigmoids(int64_t columns, const S* x, const S* mean, const S* factor) {
  constexpr S kLog2E = 1.4426950408889634;
  Vector<S> total = {};
  S rest = 0;
  for (int64_t c = 0; c < columns; c += kLanes<S>) {
    const Vector<S> s =
        S(1) / (S(1) + exp2_of<S>(energy<S>(x + c, mean + c, factor + c) * -kLog2E));
    if (c + kLanes<S> <= columns)
      total += s;
    else
      for (int64_t i = 0; i < columns - c; ++i) rest += s[i];
  }
  return sum_lanes<S>(total) + rest;
}

// sum += x where energy < limit, times `joint`; kept += 1 there. A NaN is no less, and stays NaN.
template <class S>
SIMD_TARGET void add_kept(int64_t width, const S* x, const S* mean, const S* factor, S limit,
                          S joint, S* sum, S* kept) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const Vector<S> one = Vector<S>{} + S(1), zero = {};
    const Vector<S> stays = energy<S>(x + c, mean + c, factor + c) < limit ? one : zero;
    store(sum + c, load(sum + c) + load(x + c) * (stays * joint));
    store(kept + c, load(kept + c) + stays);
  }
}

// dx = plain + dropped where energy < limit
template <class S>
SIMD_TARGET void spread(int64_t width, const S* x, const S* mean, const S* factor, S limit,
                        const S* plain, const S* dropped, S* dx) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const Vector<S> zero = {};
    store(dx + c, load(plain + c) +
                      (energy<S>(x + c, mean + c, factor + c) < limit ? load(dropped + c) : zero));
  }
}

template <class S>
constexpr Kernels<S> kKernels = {
    .lanes = kLanes<S>,
    .add_rows = &add_rows<S>,
    .add_squares = &add_squares<S>,
    .sum_sigmoids = &sum_sigmoids<S>,
    .add_kept = &add_kept<S>,
    .spread = &spread<S>,
};
