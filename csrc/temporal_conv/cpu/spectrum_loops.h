// Between frames and their real discrete Fourier transform of length 18; see spectral.h.
//
// Frames are counted from the middle of a window, -9 .. 8. Cosines of n and -n are equal and sines
// opposite, and frequencies f and 9 - f differ in a sign at odd n only: a transform is sums and
// differences of frames, a handful of products, and sums and differences again.

// cos and sin of 20 degrees times j.
constexpr double cosine(int j) {
  constexpr double kQuarter[] = {1, 0.93969262078590838, 0.76604444311897804, 0.5,
                                 0.17364817766693035};
  j %= kLength;
  if (j > kLength / 2) j = kLength - j;
  return j < 5 ? kQuarter[j] : -kQuarter[kLength / 2 - j];
}
constexpr double sine(int j) {
  constexpr double kQuarter[] = {0, 0.34202014332566873, 0.64278760968653933, 0.86602540378443865,
                                 0.98480775301220806};
  j %= kLength;
  if (j > kLength / 2) return -sine(kLength - j);
  return j < 5 ? kQuarter[j] : kQuarter[kLength / 2 - j];
}

template <class S>
struct Spectrum {
  Vector<S> cosines[kLength / 2 + 1], sines[kLength / 2];  // there is no sine 0
};

// frame(n) for n = -H .. H, or up to 8 where H is 9.
template <class S, int H, class F>
SIMD_INLINE Spectrum<S> analyzed(const F& frame) {
  Vector<S> even[H + 1], odd[H + 1];
  even[0] = frame(0);
#pragma GCC unroll 9
  for (int n = 1; n <= H && n < 9; ++n) {
    const Vector<S> after = frame(n), before = frame(-n);
    even[n] = after + before;
    odd[n] = after - before;
  }
  if constexpr (H == 9) even[9] = frame(-9);
  Spectrum<S> to;
#pragma GCC unroll 5
  for (int f = 0; f < 5; ++f) {
    Vector<S> at_even = even[0], at_odd = even[1] * S(cosine(f));
#pragma GCC unroll 9
    for (int n = 2; n <= H; ++n) (n % 2 ? at_odd : at_even) += even[n] * S(cosine(f * n));
    to.cosines[f] = at_even + at_odd;
    to.cosines[9 - f] = at_even - at_odd;
  }
#pragma GCC unroll 4
  for (int f = 1; f < 5; ++f) {
    Vector<S> at_odd = odd[1] * S(sine(f)), at_even = odd[2] * S(sine(2 * f));
#pragma GCC unroll 9
    for (int n = 3; n <= H && n < 9; ++n) (n % 2 ? at_odd : at_even) += odd[n] * S(sine(f * n));
    to.sines[f] = at_odd + at_even;
    to.sines[9 - f] = at_odd - at_even;
  }
  return to;
}

// put(n, sum over f of cosines[f] cos + sines[f] sin) for n = -H .. H.
template <class S, int H, class F>
SIMD_INLINE void synthesize_frames(const Spectrum<S>& from, const F& put) {
  Vector<S> cosines[2][5], sines[2][5];  // at even and at odd frames
#pragma GCC unroll 5
  for (int f = 0; f < 5; ++f) {
    cosines[0][f] = from.cosines[f] + from.cosines[9 - f];
    cosines[1][f] = from.cosines[f] - from.cosines[9 - f];
    if (f == 0) continue;
    sines[0][f] = from.sines[f] - from.sines[9 - f];
    sines[1][f] = from.sines[f] + from.sines[9 - f];
  }
  put(0, ((cosines[0][0] + cosines[0][1]) + (cosines[0][2] + cosines[0][3])) + cosines[0][4]);
#pragma GCC unroll 9
  for (int n = 1; n <= H; ++n) {
    Vector<S> even = cosines[n % 2][0], odd = sines[n % 2][1] * S(sine(n));
#pragma GCC unroll 4
    for (int f = 1; f < 5; ++f) even += cosines[n % 2][f] * S(cosine(f * n));
#pragma GCC unroll 3
    for (int f = 2; f < 5; ++f) odd += sines[n % 2][f] * S(sine(f * n));
    put(n, even + odd);
    put(-n, even - odd);
  }
}

// Rows of frames -H .. H become one row a slot. Returns whether all is finite: the first slot is
// the sum of all frames. Where the next window's rows will be written, `next` further on, is
// fetched.
template <class S, int H>
SIMD_TARGET bool analyze(int64_t width, RowsAt<const S> frames, RowsAt<S> slots, int64_t next) {
  Vector<S> check = {};
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const Spectrum<S> all = analyzed<S, H>(
        [&](int n) SIMD_TARGET { return load(frames.data + (n + H) * frames.stride + c); });
    S* to = slots.data + c;
    store(to, all.cosines[0]);
    store(to + slots.stride, all.cosines[9]);
#pragma GCC unroll 8
    for (int f = 1; f < 9; ++f) {
      store(to + slot_of(f) * slots.stride, all.cosines[f] + all.sines[f]);
      store(to + (slot_of(f) + 1) * slots.stride, all.cosines[f]);
      store(to + (slot_of(f) + 2) * slots.stride, all.sines[f]);
    }
    check += all.cosines[0] * S(0);
    for (int m = 0; m < kSlots; ++m) __builtin_prefetch(to + m * slots.stride + next, 1);
  }
  return sum_lanes<S>(check) == S(0);
}

// One row a slot, products of analyzed rows and weights, become rows of frames -kHalf .. kHalf.
template <class S>
SIMD_TARGET void synthesize(int64_t width, RowsAt<const S> slots, RowsAt<S> frames) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const auto slot = [&](int m) SIMD_TARGET { return load(slots.data + m * slots.stride + c); };
    Spectrum<S> all;
    all.cosines[0] = slot(0);
    all.cosines[9] = slot(1);
#pragma GCC unroll 8
    for (int f = 1; f < 9; ++f) {
      const Vector<S> both = slot(slot_of(f));
      all.cosines[f] = both + slot(slot_of(f) + 2);
      all.sines[f] = both + slot(slot_of(f) + 1);
    }
    synthesize_frames<S, kHalf>(all, [&](int n, Vector<S> v) SIMD_TARGET {
      store(frames.data + (n + kHalf) * frames.stride + c, v);
    });
  }
}

// What a frequency counts for in a real transform back.
template <class S>
constexpr S weight_of(int f) {
  return S(f == 0 || f == 9 ? 1.0 / kLength : 2.0 / kLength);
}

// Nine rows, of a tap each, to the weights of every slot.
template <class S>
SIMD_TARGET void analyze_taps(int64_t width, RowsAt<const S> taps, RowsAt<S> slots) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const Spectrum<S> all = analyzed<S, kPadding>(
        [&](int n) SIMD_TARGET { return load(taps.data + (n + kPadding) * taps.stride + c); });
    S* to = slots.data + c;
    store(to, all.cosines[0] * weight_of<S>(0));
    store(to + slots.stride, all.cosines[9] * weight_of<S>(9));
#pragma GCC unroll 8
    for (int f = 1; f < 9; ++f) {
      const Vector<S> p = all.cosines[f] * weight_of<S>(f), q = all.sines[f] * weight_of<S>(f);
      store(to + slot_of(f) * slots.stride, p);
      store(to + (slot_of(f) + 1) * slots.stride, -(p + q));
      store(to + (slot_of(f) + 2) * slots.stride, q - p);
    }
  }
}

// The gradient of analyze_taps: of the slots' weights to that of the taps.
template <class S>
SIMD_TARGET void synthesize_taps(int64_t width, RowsAt<const S> slots, RowsAt<S> taps) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const auto slot = [&](int m) SIMD_TARGET { return load(slots.data + m * slots.stride + c); };
    Spectrum<S> all;
    all.cosines[0] = slot(0) * weight_of<S>(0);
    all.cosines[9] = slot(1) * weight_of<S>(9);
#pragma GCC unroll 8
    for (int f = 1; f < 9; ++f) {
      const Vector<S> both = slot(slot_of(f)), p = slot(slot_of(f) + 1), q = slot(slot_of(f) + 2);
      all.cosines[f] = (both - p - q) * weight_of<S>(f);
      all.sines[f] = (q - p) * weight_of<S>(f);
    }
    synthesize_frames<S, kPadding>(all, [&](int n, Vector<S> v) SIMD_TARGET {
      store(taps.data + (n + kPadding) * taps.stride + c, v);
    });
  }
}

// Panels of the spectral form are as wide as leaves enough rows per block: their weights come from
// beyond the second-level cache, and are read once for all rows.
constexpr int kWidePanel = SIMD_REGISTERS == 32 ? 4 : 2;

// A panel of the product of each slot's rows with its weights, y (rows, slots, width). Neither rows
// nor weights stay in the caches next to the processor, and both are read where it does not foresee
// it: while one block is multiplied the rows of the next are fetched, and its part of the weights
// of the next slot, which follow in memory.
template <class S, int NR>
SIMD_TARGET void multiply_panel(int64_t rows, RowsAt<const S> x, int64_t x_slot,
                                const Panels<S>& weights, int64_t column, S* y) {
  constexpr int64_t kWidth = NR * kLanes<S>, kLine = 64 / sizeof(S);
  const int64_t depth = weights.depth;
  for (int64_t m = 0; m < kSlots; ++m, x.data += x_slot) {
    const S *w = weights.at(column, m), *next_w = w + depth * kWidth;
    each_rows<NR>(rows, [&]<int M>(int64_t row, std::integral_constant<int, M>) SIMD_TARGET {
      const S* from = x.data + row * x.stride;
      const S* next = row + M < rows ? from + M * x.stride : x.data + x_slot;
      const int64_t fetch = (kWidth * M + rows - 1) / rows;  // lines of weights for a line of rows
      Block<S, M, NR> block;
      for (int64_t k = 0; k < depth; k += kLine) {
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) __builtin_prefetch(next + i * x.stride + k);
        for (int64_t i = 0; i < fetch; ++i, next_w += kLine) __builtin_prefetch(next_w, 0, 2);
        block.add(k + kLine < depth ? kLine : depth - k, {from + k, x.stride, 1}, w + k * kWidth,
                  kWidth);
      }
      block.store_to(y + (row * kSlots + m) * kWidth, kSlots * kWidth);
    });
  }
}

template <class S>
SIMD_TARGET void multiply_slots(int64_t rows, RowsAt<const S> x, int64_t x_slot,
                                const Panels<S>& weights, int64_t column, S* y) {
  switch (weights.width(column) / kLanes<S>) {
    case 4:
      if constexpr (kWidePanel == 4)
        return multiply_panel<S, 4>(rows, x, x_slot, weights, column, y);
      break;
    case 3:
      if constexpr (kWidePanel == 4)
        return multiply_panel<S, 3>(rows, x, x_slot, weights, column, y);
      break;
    case 2:
      return multiply_panel<S, 2>(rows, x, x_slot, weights, column, y);
    case 1:
      return multiply_panel<S, 1>(rows, x, x_slot, weights, column, y);
  }
}
