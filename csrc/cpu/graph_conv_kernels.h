// The inner loops of the masked graph convolution, for one instruction set: see simd.h, which is
// included here, for what must be defined before.

#include "simd.h"

// out[c] (+)= sum over the terms of value * in[source + c], `N` lanes of them at a time.
template <class S, int64_t N>
SIMD_INLINE void gather_lanes(const Terms<S>& terms, int32_t first, int32_t last, const S* in,
                              S* out) {
  typedef S Part __attribute__((vector_size(N * sizeof(S)), aligned(sizeof(S)), may_alias));
  Part sum = {};
  for (int32_t p = first; p < last; ++p)
    sum += terms.value[p] * *reinterpret_cast<const Part*>(in + terms.source[p]);
  *reinterpret_cast<Part*>(out) = sum;
}

// Every slot of every frame: its terms' rows of `channels` elements, weighted and added up.
template <class S>
SIMD_TARGET void gather(const Terms<S>& terms, int64_t frames, int64_t channels, const S* in,
                        int64_t in_frame, S* out, int64_t out_frame) {
  constexpr int64_t L = kLanes<S>;
  const int64_t slots = terms.target.size();
  for (int64_t t = 0; t < frames; ++t, in += in_frame, out += out_frame) {
    for (int64_t slot = 0; slot < slots; ++slot) {
      const int32_t first = terms.first[slot], last = terms.first[slot + 1];
      S* row = out + terms.target[slot];
      int64_t c = 0;
      for (; c + L <= channels; c += L) gather_lanes<S, L>(terms, first, last, in + c, row + c);
      if constexpr (L > 4)
        for (; c + 4 <= channels; c += 4) gather_lanes<S, 4>(terms, first, last, in + c, row + c);
      for (; c < channels; ++c) {
        S sum = 0;
        for (int32_t p = first; p < last; ++p) sum += terms.value[p] * in[terms.source[p] + c];
        row[c] = sum;
      }
    }
  }
}

// total[p] += sum over frames and channels of a[links[p].a + c] * b[links[p].b + c].
template <class S>
SIMD_TARGET void link_products(const std::vector<Link>& links, int64_t frames, int64_t channels,
                               const S* a, int64_t a_frame, const S* b, int64_t b_frame, S* total) {
  constexpr int64_t L = kLanes<S>;
  for (size_t p = 0; p < links.size(); ++p) {
    const S *x = a + links[p].a, *u = b + links[p].b;
    Vector<S> lanes = {};
    S rest = 0;
    for (int64_t t = 0; t < frames; ++t, x += a_frame, u += b_frame) {
      int64_t c = 0;
      for (; c + L <= channels; c += L) lanes += load(x + c) * load(u + c);
      for (; c < channels; ++c) rest += x[c] * u[c];
    }
    total[p] += sum_lanes<S>(lanes) + rest;
  }
}

// Rows of `channels` bfloat16 numbers, `stride` apart, to rows of `width`, filled up with zeros.
template <class S>
SIMD_TARGET void widen(const uint16_t* in, int64_t rows, int64_t channels, int64_t stride, S* out,
                       int64_t width) {
  if (stride == channels && width == channels) channels = width = rows * channels, rows = 1;
  for (int64_t r = 0; r < rows; ++r, in += stride, out += width) {
    for (int64_t c = 0; c < channels; ++c)
      out[c] = static_cast<S>(std::bit_cast<float>(static_cast<uint32_t>(in[c]) << 16));
    for (int64_t c = channels; c < width; ++c) out[c] = S(0);
  }
}

// The way back, rounding to nearest even.
template <class S>
SIMD_TARGET void narrow(const S* in, int64_t rows, int64_t channels, int64_t width, uint16_t* out,
                        int64_t stride) {
  if (stride == channels && width == channels) channels = width = rows * channels, rows = 1;
  for (int64_t r = 0; r < rows; ++r, in += width, out += stride)
    for (int64_t c = 0; c < channels; ++c) {
      const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(in[c]));
      const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
      const bool nan = (bits & 0x7fffffff) > 0x7f800000;
      out[c] = static_cast<uint16_t>(nan ? 0x7fc0 : rounded);
    }
}

template <class S>
constexpr Kernels<S> kKernels = {kLanes<S>,  &product<S, false>, &product<S, true>,
                                 &gather<S>, &link_products<S>,  &widen<S>,
                                 &narrow<S>};
