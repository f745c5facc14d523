// What comes before and after the convolution, row by row: batch norm and relu, and their
// gradients; see inner_loops.h.

// As many rows are added up in one register before the sum in memory is touched: sums of sums lose
// less.
constexpr int64_t kSumRows = 32;

template <class S>
SIMD_TARGET void normalize(int64_t rows, int64_t width, RowsAt<const S> x, const S* scale,
                           const S* shift, RowsAt<S> a) {
  for (int64_t r = 0; r < rows; ++r, x.data += x.stride, a.data += a.stride)
    for (int64_t c = 0; c < width; c += kLanes<S>)
      store(a.data + c, relu_of<S>(load(x.data + c) * load(scale + c) + load(shift + c)));
}

// f(column, first row, last row) for blocks of kSumRows rows and one vector of columns.
template <class S, class F>
SIMD_INLINE void each_block(int64_t rows, int64_t width, const F& f) {
  for (int64_t r = 0; r < rows; r += kSumRows)
    for (int64_t c = 0; c < width; c += kLanes<S>)
      f(c, r, r + kSumRows < rows ? r + kSumRows : rows);
}

template <class S>
SIMD_INLINE void add_to(S* p, Vector<S> v) {
  store(p, load(p) + v);
}

template <class S>
SIMD_TARGET void combine(int64_t rows, int64_t width, RowsAt<const S> d, RowsAt<const S> y,
                         RowsAt<const S> coefficients, RowsAt<S> g, S* sums) {
  each_block<S>(rows, width, [&](int64_t c, int64_t first, int64_t last) SIMD_TARGET {
    const S* of_d = coefficients.data + c;
    const Vector<S> alpha = load(of_d), beta = load(of_d + coefficients.stride),
                    gamma = load(of_d + 2 * coefficients.stride);
    Vector<S> sum = {};
    for (int64_t r = first; r < last; ++r) {
      const Vector<S> v = load(d.data + r * d.stride + c) * alpha +
                          (load(y.data + r * y.stride + c) * beta + gamma);
      store(g.data + r * g.stride + c, v);
      sum += v;
    }
    add_to(sums + c, sum);
  });
}

template <class S>
SIMD_TARGET void finish(int64_t rows, int64_t width, RowsAt<const S> y, const S* bias,
                        RowsAt<S> out, RowsAt<S> sums) {
  each_block<S>(rows, width, [&](int64_t c, int64_t first, int64_t last) SIMD_TARGET {
    const Vector<S> added = load(bias + c);
    Vector<S> sum = {}, squares = {};
    for (int64_t r = first; r < last; ++r) {
      const Vector<S> v = load(y.data + r * y.stride + c) + added;
      store(out.data + r * out.stride + c, v);
      sum += v;
      squares += v * v;
    }
    add_to(sums.data + c, sum);
    add_to(sums.data + sums.stride + c, squares);
  });
}

// Where the relu's argument is NaN the gradient passes, as PyTorch's does.
template <class S>
SIMD_TARGET void finish_gradient(int64_t rows, int64_t width, RowsAt<const S> da, RowsAt<const S> x,
                                 const S* scale, const S* shift, RowsAt<S> out, RowsAt<S> sums) {
  each_block<S>(rows, width, [&](int64_t c, int64_t first, int64_t last) SIMD_TARGET {
    const Vector<S> zero = {}, factor = load(scale + c), added = load(shift + c);
    Vector<S> sum = {}, products = {};
    for (int64_t r = first; r < last; ++r) {
      const Vector<S> from = load(x.data + r * x.stride + c);
      const Vector<S> v = from * factor + added <= zero ? zero : load(da.data + r * da.stride + c);
      store(out.data + r * out.stride + c, v);
      sum += v;
      products += v * from;
    }
    add_to(sums.data + c, sum);
    add_to(sums.data + sums.stride + c, products);
  });
}
