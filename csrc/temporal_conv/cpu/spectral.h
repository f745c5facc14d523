#pragma once
// The convolution with fewer products, for wide layers. In the real discrete Fourier transform of
// length 18 a convolution is a product at each frequency: real ones at 0 and 9, and complex ones at
// 1 .. 8, which are three real ones each. That is 26 products for a window of 13 frames, which has
// 97 taps of frames otherwise.
//
// Of rows x let p = sum_n x[n] cos(2 pi f n / 18) and q the same with sines, and c and d those of
// the taps. Then y = sum over f of P cos + Q sin with P = p c + q d, Q = q c - p d, and
//   P = (p + q) c + q (d - c)        Q = (p + q) c - p (c + d)
// The slots of a frequency hold p + q, p and q, their weights c, -(c + d) and d - c. Backward is
// the same with taps the other way round, d becoming -d, and weights transposed. Since q's product
// goes to P and p's to Q, the weights' gradients are (p+q)' (P+Q), p' Q and q' P.

#include <optional>
#include <vector>

#include "direct.h"
#include "windows.h"

namespace msclr::temporal_conv_cpu {

// The widths of rows that are read at many places at once: not of a large power of two, for those
// places would share a few sets of the cache.
template <class S>
int64_t spread(int64_t width) {
  constexpr int64_t kLine = 64 / sizeof(S);
  return width % (8 * kLine) ? width : width + kLine;
}

// The matrices of the slots.
template <class S>
Packed<S> pack_slots(const Weights<S>& weights) {
  Packed<S> packed(kSlots, weights.depth(), weights.columns(), spectral_kernels<S>().panel);
  each_taps<S>(weights, packed, [&](int64_t i, int64_t column, int64_t width, S* taps) {
    const int64_t flip = weights.transpose ? -1 : 1;  // the taps the other way round
    spectral_kernels<S>().analyze_taps(
        width, {weights.transpose ? taps + (kTaps - 1) * width : taps, flip * width},
        {packed.panels().at(column, 0) + i * width, width * packed.panels().depth});
  });
  return packed;
}

// A thread's products of a chunk's slots with all weights, a panel of columns at a time.
template <class S>
class Products {
 public:
  explicit Products(const Panels<S>& weights)
      : weights_(weights),
        products_(chunk_windows<S>() * kSlots * weights.widest),
        frames_((2 * kHalf + 1) * weights.widest) {}

  // f(column, i, rows of frames -kHalf .. kHalf) for every panel and window.
  template <class F>
  void run(int64_t windows, RowsAt<const S> x, int64_t slot_distance, const F& f) const {
    for (int64_t column = 0; column < weights_.columns; column += weights_.widest) {
      const int64_t width = weights_.width(column);
      spectral_kernels<S>().multiply(windows, x, slot_distance, weights_, column, products_.get());
      for (int64_t i = 0; i < windows; ++i) {
        spectral_kernels<S>().synthesize(width, {products_.get() + i * kSlots * width, width},
                                         {frames_.get(), width});
        f(column, i, RowsAt<S>{frames_.get(), width});
      }
    }
  }

 private:
  const Panels<S>& weights_;
  Buffer<S> products_, frames_;
};

// Which rows of the tensor a window's own frames are.
inline Part own_part(const Tile& tile, int64_t sample_row, int64_t column, int64_t width) {
  const int64_t joints = tile.segment->joints;
  return {sample_row + tile.start * joints + tile.joint, tile.frames, joints, column, width};
}
// And which of the frames that came out.
template <class S>
RowsAt<S> own_rows(const Chunk& chunk, const Tile& tile, RowsAt<S> frames) {
  const int64_t before = tile.start - chunk.middle(tile) + kHalf;
  return {frames.data + before * frames.stride, frames.stride};
}

template <class S>
class SpectralForward {
 public:
  SpectralForward(const Forward<S>& to, const Panels<S>& slots, Lazy<Packed<S>>& taps)
      : to_(to),
        taps_(taps),
        width_(to.norm.scale.size()),
        frames_((kLength + 1) * width_),
        x_(chunk_windows<S>(), spread<S>(width_)),
        products_(slots) {}

  // Adds to `sums` (2, width of y).
  void run(const Chunk& chunk, S* sums) {
    std::vector<bool> finite(chunk.count);
    for (int64_t i = 0; i < chunk.count; ++i) finite[i] = analyze(chunk, i);
    products_.run(chunk.count, x_.slot(0), x_.slot_distance(),
                  [&](int64_t column, int64_t i, RowsAt<S> frames) {
                    if (finite[i]) finish(chunk, i, column, frames, sums);
                  });
    for (int64_t i = 0; i < chunk.count; ++i)
      if (!finite[i]) run_direct(chunk.tile(i), sums);
  }

 private:
  bool analyze(const Chunk& chunk, int64_t i) {
    const Tile tile = chunk.tile(i);
    return analyze_window(chunk, tile, kPadding, x_row(tile), frames_.get(), width_, x_, i,
                          [&](const Part& part, S* rows) { to_.norm.read(to_.x, part, rows); });
  }

  void finish(const Chunk& chunk, int64_t i, int64_t column, RowsAt<S> frames, S* sums) const {
    const Tile tile = chunk.tile(i);
    const Part part = own_part(tile, y_row(tile), column, frames.stride);
    const RowsAt<S> rows = own_rows(chunk, tile, frames);
    kernels<S>().finish(part.count, part.columns, {rows.data, rows.stride},
                        to_.bias.data() + column, to_.y.target(part, rows.data),
                        {sums + column, int64_t(to_.bias.size())});
    to_.y.write(part, rows.data);
  }

  // What is not finite would spread over all frames of a window; taps keep it in its place.
  void run_direct(const Tile& tile, S* sums) {
    const std::vector<Tile> tiles{tile};
    const Packed<S>& taps = taps_.get([&] { return pack_taps(to_.weights); });
    DirectForward<S>(to_, taps, tiles).run(tile, sums);
  }

  const Forward<S>& to_;
  Lazy<Packed<S>>& taps_;
  int64_t width_;
  Buffer<S> frames_;
  Slots<S> x_;
  Products<S> products_;
};

}  // namespace msclr::temporal_conv_cpu
