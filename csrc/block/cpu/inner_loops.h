// The inner loops of a block's output, for one instruction set: see simd.h, which is included here,
// for what must be defined before.

#include "../../common/simd.h"

#include "../../common/philox_loops.h"

// 0 or `kept` for each of 64 numbers of some groups. Word w of block 16 g + i is for number
// 16 w + i of group g, whatever the width of a vector.
template <class S>
SIMD_TARGET void dropout_factors(int64_t first_group, int64_t groups, const Counter& of,
                                 uint32_t threshold, S kept, S* factors) {
  constexpr int64_t L = kLanes<float>;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < 16; i += L) {
      Words words[4];
      philox(static_cast<uint32_t>((first_group + g) * 16 + i), of, words);
      for (int w = 0; w < 4; ++w) {
        S* to = factors + g * 64 + w * 16 + i;
        if constexpr (std::is_same_v<S, float>)
          store(to, words[w] < threshold ? Vector<S>{} : Vector<S>{} + kept);
        else
          for (int64_t lane = 0; lane < L; ++lane)
            to[lane] = words[w][lane] < threshold ? S(0) : kept;
      }
    }
}

// y = relu((h * scale + shift) * factor + r * r_scale + r_shift); without factors or r where null.
template <class S>
SIMD_TARGET void output(int64_t rows, int64_t width, RowsAt<const S> h, RowsAt<const S> norm,
                        RowsAt<const S> factors, RowsAt<const S> r, RowsAt<const S> r_norm,
                        RowsAt<S> y) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < width; c += kLanes<S>) {
      Vector<S> v =
          load(h.data + i * h.stride + c) * load(norm.data + c) + load(norm.data + norm.stride + c);
      if (factors.data) v *= load(factors.data + i * factors.stride + c);
      if (r.data) {
        Vector<S> added = load(r.data + i * r.stride + c);
        if (r_norm.data)
          added = added * load(r_norm.data + c) + load(r_norm.data + r_norm.stride + c);
        v += added;
      }
      store(y.data + i * y.stride + c, relu_of<S>(v));
    }
}

// z = dy where y > 0 (where it is NaN the gradient passes), d = z * factor; z is written where
// not null. sums (4, width) += d, d h, z, z r.
template <class S>
SIMD_TARGET void output_gradient(int64_t rows, int64_t width, RowsAt<const S> dy, RowsAt<const S> y,
                                 RowsAt<const S> h, RowsAt<const S> factors, RowsAt<const S> r,
                                 RowsAt<S> d, RowsAt<S> z, RowsAt<S> sums) {
  for (int64_t c = 0; c < width; c += kLanes<S>) {
    const Vector<S> zero = {};
    Vector<S> sum[4] = {};
    for (int64_t i = 0; i < rows; ++i) {
      const Vector<S> open =
          load(y.data + i * y.stride + c) <= zero ? zero : load(dy.data + i * dy.stride + c);
      Vector<S> dropped = open;
      if (factors.data) dropped *= load(factors.data + i * factors.stride + c);
      store(d.data + i * d.stride + c, dropped);
      sum[0] += dropped;
      sum[1] += dropped * load(h.data + i * h.stride + c);
      if (!r.data) continue;
      store(z.data + i * z.stride + c, open);
      sum[2] += open;
      sum[3] += open * load(r.data + i * r.stride + c);
    }
    for (int j = 0; j < 4; ++j) {
      S* to = sums.data + j * sums.stride + c;
      store(to, load(to) + sum[j]);
    }
  }
}

// to += added, where gate > 0 if there is one; n numbers side by side.
template <class S>
SIMD_TARGET void add_where(int64_t n, const S* added, const S* gate, S* to) {
  constexpr int64_t L = kLanes<S>;
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    const Vector<S> zero = {}, v = load(added + i);
    store(to + i, load(to + i) + (gate ? (load(gate + i) <= zero ? zero : v) : v));
  }
  for (; i < n; ++i) to[i] += gate && gate[i] <= S(0) ? S(0) : added[i];
}

template <class S>
constexpr Kernels<S> kKernels = {
    .dropout_factors = &dropout_factors<S>,
    .output = &output<S>,
    .output_gradient = &output_gradient<S>,
    .add_where = &add_where<S>,
};
