#pragma once
// The inner loops for this processor's instruction set.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../../common/instruction_set.h"
#include "../../common/strided.h"
#include "../arguments.h"

namespace msclr::temporal_conv_cpu {

// Rows in memory: `stride` elements from one to the next.
template <class S>
struct RowsAt {
  S* data;
  int64_t stride;
};

// One tap of a convolution of rows. Output row r reads row r of `source` times the matrix `slot`;
// only output frames first .. last-1 read anything but zeros.
template <class S>
struct Tap {
  const S* source;
  int64_t slot, first, last;
};

template <class S>
struct Taps {
  Tap<S> list[kTaps];
  int64_t count = 0;

  void add(const Tap<S>& tap) { list[count++] = tap; }
};

// Matrices (depth, columns), `slots` of them, in the order in which products read them: panel by
// panel of some columns, in each one slot after the other, rows of the panel's width.
template <class S>
struct Panels {
  S* data;
  int64_t slots, depth, columns, widest;

  int64_t width(int64_t column) const {
    return columns - column < widest ? columns - column : widest;
  }
  S* at(int64_t column, int64_t slot) const {
    return data + (column * slots + slot * width(column)) * depth;
  }
};

// The spectral form, see spectral.h: a transform's length, how many products it leaves, and how far
// to each side of a window's middle frames come out.
constexpr int kLength = 18, kSlots = 26, kHalf = 7;

// The first of the three slots of a frequency 1 .. 8; 0 and 9 have slots 0 and 1.
constexpr int slot_of(int frequency) { return 2 + 3 * (frequency - 1); }

template <class S>
struct Kernels {
  int64_t lanes;  // numbers of a vector: widths of rows are multiples of it
  int64_t panel;  // columns of a full panel

  // rows, width, x, scale, shift, a:  a = relu(x * scale + shift)
  void (*normalize)(int64_t, int64_t, RowsAt<const S>, const S*, const S*, RowsAt<S>);
  // rows, width, d, y, coefficients, g, sums:  g = c[0] d + c[1] y + c[2];  sums += g
  void (*combine)(int64_t, int64_t, RowsAt<const S>, RowsAt<const S>, RowsAt<const S>, RowsAt<S>,
                  S*);
  // rows, width, y, bias, out, sums (2, width):  out = y + bias;  sums += out, out^2
  void (*finish)(int64_t, int64_t, RowsAt<const S>, const S*, RowsAt<S>, RowsAt<S>);
  // rows, width, da, x, scale, shift, out, sums (2, width):
  // out = da where x * scale + shift > 0;  sums += out, out * x
  void (*finish_gradient)(int64_t, int64_t, RowsAt<const S>, RowsAt<const S>, const S*, const S*,
                          RowsAt<S>, RowsAt<S>);
  // taps, frames, joints, distance of source rows, weights, c:  c = sum over taps of products
  void (*convolve)(const Taps<S>&, int64_t, int64_t, int64_t, const Panels<S>&, RowsAt<S>);
  // m, n, depth, a, b, distance of b's rows, c, distance of c's rows:  c += a b
  void (*product_add)(int64_t, int64_t, int64_t, Strided<S>, const S*, int64_t, S*, int64_t);
};

// Those of the spectral form. In rows of slots and frames the stride is from one to the next.
template <class S>
struct SpectralKernels {
  int64_t panel;   // columns of a full panel
  int64_t height;  // rows of a full block
  // width, frames -7 .. 7 or -9 .. 8, slots, distance of the next window's
  bool (*analyze)(int64_t, RowsAt<const S>, RowsAt<S>, int64_t);
  bool (*analyze_block)(int64_t, RowsAt<const S>, RowsAt<S>, int64_t);
  void (*synthesize)(int64_t, RowsAt<const S>, RowsAt<S>);       // width, slots, frames -7 .. 7
  void (*analyze_taps)(int64_t, RowsAt<const S>, RowsAt<S>);     // width, taps, slots
  void (*synthesize_taps)(int64_t, RowsAt<const S>, RowsAt<S>);  // width, slots, taps
  // rows, x, distance of its slots, weights, column, y (rows, slots, width of the panel)
  void (*multiply)(int64_t, RowsAt<const S>, int64_t, const Panels<S>&, int64_t, S*);
};

#define SIMD_KERNELS "../temporal_conv/cpu/inner_loops.h"
#include "../../common/simd_targets.h"
#undef SIMD_KERNELS

template <class S>
const Kernels<S>& kernels() {
  return SIMD_CHOOSE(kKernels<S>);
}

template <class S>
const SpectralKernels<S>& spectral_kernels() {
  return SIMD_CHOOSE(kSpectralKernels<S>);
}

}  // namespace msclr::temporal_conv_cpu
