// The inner loops of the masked graph convolution, for one instruction set: see simd.h, which is
// included here, for what must be defined before.

#include "../../common/simd.h"

// One slot of F frames from frame t on, N channels of it: the terms' rows, weighted and added up.
template <class S, int64_t N, int F>
SIMD_INLINE void gather_lanes(const Terms<S>& terms, int64_t slot, int64_t t, const S* in, S* out) {
  typedef S Part __attribute__((vector_size(N * sizeof(S)), aligned(sizeof(S)), may_alias));
  Part sum[F] = {};
  for (int32_t p = terms.first[slot]; p < terms.first[slot + 1]; ++p) {
    const auto& term = terms.terms[p];
    const S* row = in + term.source.offset + t * term.source.step;
#pragma GCC unroll 8
    for (int f = 0; f < F; ++f)
      sum[f] += term.value * *reinterpret_cast<const Part*>(row + f * term.source.step);
  }
  const Row& target = terms.target[slot];
#pragma GCC unroll 8
  for (int f = 0; f < F; ++f)
    *reinterpret_cast<Part*>(out + target.offset + (t + f) * target.step) = sum[f];
}

template <class S, int F>
SIMD_INLINE void gather_frames(const Terms<S>& terms, int64_t t, int64_t channels, const S* in,
                               S* out) {
  constexpr int64_t L = kLanes<S>;
  const int64_t slots = terms.target.size();
  for (int64_t slot = 0; slot < slots; ++slot) {
    int64_t c = 0;
    for (; c + L <= channels; c += L) gather_lanes<S, L, F>(terms, slot, t, in + c, out + c);
    for (; c < channels; c += kGranule)
      gather_lanes<S, kGranule, F>(terms, slot, t, in + c, out + c);
  }
}

// Every slot of every frame. Several frames at a time share the reading of the terms and keep the
// multiply-adds independent of each other. The slots jump about in a frame, which no hardware
// prefetcher follows: in_frame elements a frame of `in` are fetched ahead, 0 if they are in cache.
template <class S>
SIMD_TARGET void gather(const Terms<S>& terms, int64_t frames, int64_t channels, const S* in,
                        int64_t in_frame, S* out) {
  int64_t t = 0;
  for (; t + 4 <= frames; t += 4) {
    for (int64_t i = 0; i < 4 * in_frame; i += 64 / sizeof(S))
      __builtin_prefetch(in + (t + 4) * in_frame + i);
    gather_frames<S, 4>(terms, t, channels, in, out);
  }
  for (; t < frames; ++t) gather_frames<S, 1>(terms, t, channels, in, out);
}

// The sum over frames of the product of two rows of N channels.
template <class S, int64_t N>
SIMD_INLINE S row_products(int64_t frames, const S* a, int64_t a_step, const S* b, int64_t b_step) {
  typedef S Part __attribute__((vector_size(N * sizeof(S)), aligned(sizeof(S)), may_alias));
  auto at = [](const S* p) SIMD_TARGET { return *reinterpret_cast<const Part*>(p); };
  Part sum[4] = {};  // independent of each other
  int64_t t = 0;
  for (; t + 4 <= frames; t += 4)
#pragma GCC unroll 4
    for (int f = 0; f < 4; ++f) sum[f] += at(a + (t + f) * a_step) * at(b + (t + f) * b_step);
  for (; t < frames; ++t) sum[0] += at(a + t * a_step) * at(b + t * b_step);
  const Part all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  S total = 0;
  for (int64_t i = 0; i < N; ++i) total += all[i];
  return total;
}

// total[p] += the sum over frames and channels of row a times row b of link p.
template <class S>
SIMD_TARGET void link_products(const std::vector<Link>& links, int64_t frames, int64_t channels,
                               const S* a, const S* b, S* total) {
  constexpr int64_t L = kLanes<S>;
  for (int64_t p = 0; p < std::ssize(links); ++p) {
    const Link& link = links[p];
    const S *x = a + link.a.offset, *u = b + link.b.offset;
    int64_t c = 0;
    for (; c + L <= channels; c += L)
      total[p] += row_products<S, L>(frames, x + c, link.a.step, u + c, link.b.step);
    for (; c < channels; c += kGranule)
      total[p] += row_products<S, kGranule>(frames, x + c, link.a.step, u + c, link.b.step);
  }
}

// Rows of `channels` numbers to rows of `width`, filled up with zeros.
template <class S>
SIMD_TARGET void copy_rows(const S* in, int64_t rows, int64_t channels, int64_t in_stride, S* out,
                           int64_t out_stride, int64_t width) {
  constexpr int64_t L = kLanes<S>;
  typedef S Part __attribute__((vector_size(kGranule * sizeof(S)), aligned(sizeof(S)), may_alias));
  // Coordinates, (x, y, z): four numbers are read, of which the last belongs to the row behind.
  for (; channels == 3 && width == 4 && in_stride >= 3 && rows > 1;
       --rows, in += in_stride, out += out_stride) {
    Part row = *reinterpret_cast<const Part*>(in);
    row[3] = S(0);
    *reinterpret_cast<Part*>(out) = row;
  }
  for (int64_t r = 0; r < rows; ++r, in += in_stride, out += out_stride) {
    int64_t c = 0;
    for (; c + L <= channels; c += L) store(out + c, load(in + c));
    for (; c < channels; ++c) out[c] = in[c];
    for (; c < width; ++c) out[c] = S(0);
  }
}

template <class S>
constexpr Kernels<S> kKernels = {
    .lanes = kLanes<S>,
    .product = &product<S, false>,
    .product_add = &product<S, true>,
    .gather = &gather<S>,
    .link_products = &link_products<S>,
    .copy_rows = &copy_rows<S>,
};
