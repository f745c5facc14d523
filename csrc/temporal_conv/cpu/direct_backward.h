#pragma once
// The gradients of direct.h. x's is the same convolution with the taps the other way round and the
// weights transposed; with stride s, frames of x that leave the same remainder read the same taps.

#include <vector>

#include "direct.h"

namespace msclr::temporal_conv_cpu {

// What the gradients need, and where they go.
template <class S>
struct Backward {
  const OutputGradient<S>& g;
  const Matrix<S>& x;
  const Norm<S>& norm;
  Weights<S> transposed;
  int64_t stride, rows;  // of y
  const Matrix<S>* e;    // null: not wanted
  bool want_weight;
};

// The gradient of the weights, a matrix (C_in, width) a tap, of some of the tiles.
template <class S>
class WeightSums {
 public:
  WeightSums(int64_t c_in, int64_t width) : c_in_(c_in), width_(width) {
    sums_.resize(kTaps * c_in * width, S(0));
  }
  S* tap(int64_t k) { return sums_.data() + k * c_in_ * width_; }
  const S* tap(int64_t k) const { return sums_.data() + k * c_in_ * width_; }
  int64_t width() const { return width_; }
  // To (C_out, C_in, 9).
  void add_to(std::vector<double>& to) const {
    const int64_t c_out = to.size() / (c_in_ * kTaps);
    for (int64_t o = 0; o < c_out; ++o)
      for (int64_t c = 0; c < c_in_; ++c)
        for (int64_t k = 0; k < kTaps; ++k)
          to[(o * c_in_ + c) * kTaps + k] += sums_[(k * c_in_ + c) * width_ + o];
  }

 private:
  int64_t c_in_, width_;
  std::vector<S> sums_;
};

template <class S>
class DirectBackward {
 public:
  DirectBackward(const Backward<S>& to, const Panels<S>* transposed, const std::vector<Tile>& tiles)
      : to_(to),
        transposed_(transposed),
        source_(to.x, to.norm, to.stride, tiles),
        width_(to.g.width),
        g_(most_rows(tiles, reach(to.stride)) * width_),
        scratch_(most_rows(tiles, reach(to.stride)) * width_),
        unused_(width_, S(0)),
        e_(most_rows(tiles, 0) * source_.width()),
        x_(most_rows(tiles, 0) * source_.width()) {}

  // Adds to the sums of e (2, width of x), of g (width of y), and to the weights' gradient.
  void run(const Tile& tile, S* e_sums, S* g_sums, WeightSums<S>* weight) {
    read_gradient(tile, g_sums);
    if (to_.want_weight) {
      source_.read(tile);
      add_weight(tile, *weight);
    }
    for (int64_t phase = 0; to_.e && phase < to_.stride; ++phase) {
      kernels<S>().convolve(taps(tile, phase), tile.frames, tile.joints, width_, *transposed_,
                            {e_.get(), source_.width()});
      finish(tile, phase, e_sums);
    }
  }

 private:
  // Frames of y before and after the tile's that x's gradient reads.
  int64_t margin() const { return reach(to_.stride) / 2; }
  S* g_frame(const Tile& tile, int64_t frame) const {
    return g_.get() + (frame + margin()) * tile.joints * width_;
  }

  void read_gradient(const Tile& tile, S* sums) {
    read_frames(tile, -margin(), margin(), unused_.data());
    read_frames(tile, 0, tile.frames, sums);
    read_frames(tile, tile.frames, margin(), unused_.data());
  }

  void read_frames(const Tile& tile, int64_t first, int64_t count, S* sums) {
    const Frames frames{tile.start + first, count, 1, tile.segment->out_frames};
    S* to = g_frame(tile, first);
    clear_rows(to, 0, frames.begin() * tile.joints, width_);
    clear_rows(to, frames.end() * tile.joints, count * tile.joints, width_);
    each_part(tile, frames, y_row(tile), width_, [&](const Part& part, int64_t place) {
      to_.g.read(part, to + place * width_, scratch_.get(), sums);
    });
  }

  void add_weight(const Tile& tile, WeightSums<S>& weight) {
    const Taps<S> taps = source_.taps(tile);
    for (int64_t i = 0; i < taps.count; ++i) {
      const Tap<S>& tap = taps.list[i];
      const int64_t first = tap.first * tile.joints;
      kernels<S>().product_add(to_.x.columns(), width_, tap.last * tile.joints - first,
                               {tap.source + first * source_.width(), 1, source_.width()},
                               g_frame(tile, tap.first), width_, weight.tap(tap.slot),
                               weight.width());
    }
  }

  // The taps that make the frames of x that leave the remainder `phase`.
  Taps<S> taps(const Tile& tile, int64_t phase) const {
    Taps<S> taps;
    for (int64_t k = phase; k < kTaps; k += to_.stride) {
      const int64_t shift = margin() - k / to_.stride;
      const Frames read{tile.start + shift, tile.frames, 1, tile.segment->out_frames};
      taps.add({g_frame(tile, shift), k, read.begin(), read.end()});
    }
    return taps;
  }

  void finish(const Tile& tile, int64_t phase, S* sums) {
    const int64_t width = source_.width();
    const Frames frames{to_.stride * tile.start + phase, tile.frames, to_.stride,
                        tile.segment->frames};
    each_part(tile, frames, x_row(tile), width, [&](const Part& part, int64_t place) {
      S* rows = e_.get() + place * width;
      kernels<S>().finish_gradient(part.count, width, {rows, width}, to_.x.read(part, x_.get()),
                                   to_.norm.scale.data(), to_.norm.shift.data(),
                                   to_.e->target(part, rows), {sums, width});
      to_.e->write(part, rows);
    });
  }

  const Backward<S>& to_;
  const Panels<S>* transposed_;
  Source<S> source_;
  int64_t width_;
  Buffer<S> g_, scratch_;
  std::vector<S> unused_;
  Buffer<S> e_, x_;
};

}  // namespace msclr::temporal_conv_cpu
