// The matrix products of the temporal convolution; see inner_loops.h.

// A panel is two vectors wide: the widest with which a block has enough rows to make little of the
// reading of weights, which come from the second-level cache.
constexpr int kPanel = 2;

// Rows of a block whose sums fill the registers, next to NR vectors of weights and one factor. One
// vector alone does not need all registers; 16 rows divide the usual widths.
template <int NR>
constexpr int kHeight = NR > 1                 ? (SIMD_REGISTERS - NR - 1) / NR
                        : SIMD_REGISTERS == 32 ? 16
                                               : 8;

// f(first row, std::integral_constant<int, rows>): blocks of the most rows that still fit.
template <int NR, class F>
SIMD_INLINE void each_rows(int64_t rows, const F& f) {
  int64_t i = 0;
  auto blocks = [&]<int M>(std::integral_constant<int, M> size) SIMD_TARGET {
    if constexpr (M <= kHeight<NR>)
      for (; i + M <= rows; i += M) f(i, size);
  };
  blocks(std::integral_constant<int, kHeight<NR>>());
  blocks(std::integral_constant<int, 8>());
  blocks(std::integral_constant<int, 4>());
  blocks(std::integral_constant<int, 2>());
  blocks(std::integral_constant<int, 1>());
}

// f(first column, std::integral_constant<int, vectors>) for panels of `columns`.
template <class S, class F>
SIMD_INLINE void each_panel(int64_t columns, const F& f) {
  constexpr int64_t L = kLanes<S>;
  int64_t c = 0;
  for (; c + kPanel * L <= columns; c += kPanel * L) f(c, std::integral_constant<int, kPanel>());
  for (; c < columns; c += L) f(c, std::integral_constant<int, 1>());
}

// One panel of the output: its sums stay in registers over all taps.
template <class S, int NR>
SIMD_TARGET void convolve_panel(const Taps<S>& taps, int64_t frames, int64_t joints, int64_t stride,
                                const Panels<S>& weights, int64_t column, RowsAt<S> c) {
  const int64_t depth = weights.depth;
  each_rows<NR>(frames * joints,
                [&]<int M>(int64_t row, std::integral_constant<int, M>) SIMD_TARGET {
                  const int64_t first = row / joints, last = (row + M - 1) / joints;  // frames
                  Block<S, M, NR> block;
                  for (int64_t i = 0; i < taps.count; ++i) {
                    const Tap<S>& tap = taps.list[i];
                    if (tap.first > last || first >= tap.last) continue;
                    block.add(depth, {tap.source + row * stride, stride, 1},
                              weights.at(column, tap.slot), NR * kLanes<S>);
                  }
                  block.store_to(c.data + row * c.stride + column, c.stride);
                });
}

template <class S>
SIMD_TARGET void convolve(const Taps<S>& taps, int64_t frames, int64_t joints, int64_t stride,
                          const Panels<S>& weights, RowsAt<S> c) {
  each_panel<S>(weights.columns,
                [&]<int NR>(int64_t column, std::integral_constant<int, NR>) SIMD_TARGET {
                  convolve_panel<S, NR>(taps, frames, joints, stride, weights, column, c);
                });
}

// c += a b in steps of as much depth as keeps a panel of b in the first-level cache for all rows.
template <class S, int NR>
SIMD_TARGET void product_add_panel(int64_t m, int64_t depth, Strided<S> a, const S* b, int64_t ldb,
                                   S* c, int64_t ldc) {
  constexpr int64_t kDepth = 96, kStep = 8;
  for (int64_t d = 0; d < depth; d += kDepth) {
    const int64_t end = d + kDepth < depth ? d + kDepth : depth;
    each_rows<NR>(m, [&]<int M>(int64_t row, std::integral_constant<int, M>) SIMD_TARGET {
      const S* from = a.data + row * a.rows;
      const S* next = row + M < m ? from + M * a.rows : a.data + kDepth * a.columns;
      Block<S, M, NR> block;
      block.load_from(c + row * ldc, ldc);
      for (int64_t k = d; k < end; k += kStep) {
#pragma GCC unroll 8
        for (int64_t i = k; i < k + kStep; ++i) __builtin_prefetch(next + i * a.columns);
        block.add(k + kStep < end ? kStep : end - k, {from + k * a.columns, a.rows, a.columns},
                  b + k * ldb, ldb);
      }
      block.store_to(c + row * ldc, ldc);
    });
  }
}

template <class S>
SIMD_TARGET void product_add(int64_t m, int64_t n, int64_t depth, Strided<S> a, const S* b,
                             int64_t ldb, S* c, int64_t ldc) {
  each_panel<S>(n, [&]<int NR>(int64_t column, std::integral_constant<int, NR>) SIMD_TARGET {
    product_add_panel<S, NR>(m, depth, a, b + column, ldb, c + column, ldc);
  });
}
