// The inner loops of the masked graph convolution, for one instruction set: see simd.h, which is
// included here, for what must be defined before.

#include "../simd.h"

// One slot of F frames, N channels of it: the terms' rows, weighted and added up.
template <class S, int64_t N, int F>
SIMD_INLINE void gather_lanes(const Terms<S>& terms, int64_t slot, const S* in, int64_t in_frame,
                              S* out, int64_t out_frame) {
  typedef S Part __attribute__((vector_size(N * sizeof(S)), aligned(sizeof(S)), may_alias));
  Part sum[F] = {};
  for (int32_t p = terms.first[slot]; p < terms.first[slot + 1]; ++p) {
    const S value = terms.value[p];
    const S* row = in + terms.source[p];
#pragma GCC unroll 8
    for (int f = 0; f < F; ++f)
      sum[f] += value * *reinterpret_cast<const Part*>(row + f * in_frame);
  }
#pragma GCC unroll 8
  for (int f = 0; f < F; ++f)
    *reinterpret_cast<Part*>(out + terms.target[slot] + f * out_frame) = sum[f];
}

template <class S, int F>
SIMD_INLINE void gather_frames(const Terms<S>& terms, int64_t channels, const S* in,
                               int64_t in_frame, S* out, int64_t out_frame) {
  constexpr int64_t L = kLanes<S>;
  const int64_t slots = terms.target.size();
  for (int64_t slot = 0; slot < slots; ++slot) {
    int64_t c = 0;
    for (; c + L <= channels; c += L)
      gather_lanes<S, L, F>(terms, slot, in + c, in_frame, out + c, out_frame);
    for (; c < channels; c += kGranule)
      gather_lanes<S, kGranule, F>(terms, slot, in + c, in_frame, out + c, out_frame);
  }
}

// The slots jump about in a frame, which no hardware prefetcher follows.
template <class S>
SIMD_INLINE void prefetch(const S* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / sizeof(S)) __builtin_prefetch(from + i);
}

// Every slot of every frame. Several frames at a time share the reading of the terms and keep the
// multiply-adds independent of each other.
template <class S>
SIMD_TARGET void gather(const Terms<S>& terms, int64_t frames, int64_t channels, const S* in,
                        int64_t in_frame, S* out, int64_t out_frame) {
  int64_t t = 0;
  for (; t + 4 <= frames; t += 4) {
    prefetch(in + (t + 4) * in_frame, 4 * in_frame);
    gather_frames<S, 4>(terms, channels, in + t * in_frame, in_frame, out + t * out_frame,
                        out_frame);
  }
  for (; t < frames; ++t)
    gather_frames<S, 1>(terms, channels, in + t * in_frame, in_frame, out + t * out_frame,
                        out_frame);
}

// sum over the frames of the product of two rows of N channels, frame by frame apart.
template <class S, int64_t N>
SIMD_INLINE S row_products(int64_t frames, const S* a, int64_t a_frame, const S* b,
                           int64_t b_frame) {
  typedef S Part __attribute__((vector_size(N * sizeof(S)), aligned(sizeof(S)), may_alias));
  auto at = [](const S* p) SIMD_TARGET { return *reinterpret_cast<const Part*>(p); };
  Part sum[4] = {};
  int64_t t = 0;
  for (; t + 4 <= frames; t += 4)
#pragma GCC unroll 4
    for (int f = 0; f < 4; ++f) sum[f] += at(a + (t + f) * a_frame) * at(b + (t + f) * b_frame);
  for (; t < frames; ++t) sum[0] += at(a + t * a_frame) * at(b + t * b_frame);
  const Part all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  S total = 0;
  for (int64_t i = 0; i < N; ++i) total += all[i];
  return total;
}

// total[p] += sum over frames and channels of a[links[p].a + c] * b[links[p].b + c].
template <class S>
SIMD_TARGET void link_products(const std::vector<Link>& links, int64_t frames, int64_t channels,
                               const S* a, int64_t a_frame, const S* b, int64_t b_frame, S* total) {
  constexpr int64_t L = kLanes<S>;
  for (int64_t p = 0; p < std::ssize(links); ++p) {
    const S *x = a + links[p].a, *u = b + links[p].b;
    int64_t c = 0;
    for (; c + L <= channels; c += L)
      total[p] += row_products<S, L>(frames, x + c, a_frame, u + c, b_frame);
    for (; c < channels; c += kGranule)
      total[p] += row_products<S, kGranule>(frames, x + c, a_frame, u + c, b_frame);
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
